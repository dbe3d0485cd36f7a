package cluster

import (
	"fmt"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// An inventory may call a card by any name that other files have for it.
func TestAnInventoryNamesCardsAsOtherFilesDo(t *testing.T) {
	xml := strings.ReplaceAll(valid, ` mac="52:54:00:00:0{rack}:0{blade}"`, "")
	for name, want := range map[string]string{
		"n11": "n11 eth0", "n11.d.example": "n11 eth0", "n11-eth1": "n11 eth1", "n11-eth1.d.example": "n11 eth1",
		"10.0.0.11": "n11 eth0", "10.1.0.11": "n11 eth1",
	} {
		c := testkit.Value(Parse(Source{Name: "c.xml", XML: []byte(xml), Open: openTest(map[string]string{
			"macs.csv": "5254.0000.0001 " + name + "\n",
		})}))(t)
		n, card, ok := c.NodeByMAC([]byte{0x52, 0x54, 0, 0, 0, 1})
		if !ok || fmt.Sprint(n.Name, " ", card.Name) != want {
			t.Errorf("%s: the MAC is that of %v %v, want %s", name, n, card, want)
		}
	}
	for name, want := range map[string]string{
		"n11-eth9": `macs.csv:1:16: node "n11-eth9" is not defined`, "10.0.0.99": `node "10.0.0.99" is not defined`,
		"n11.e.example": `node "n11.e.example" is not defined`,
	} {
		_, err := Parse(Source{Name: "c.xml", XML: []byte(xml), Open: openTest(map[string]string{
			"macs.csv": "5254.0000.0001 " + name + "\n",
		})})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}
