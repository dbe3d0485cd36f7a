package inventory

import (
	"encoding/hex"
	"net"
	"strings"
)

// ParseMAC parses a hardware address of six bytes in any spelling that is in use: 52:54:00:4d:00:01, 52-54-00-4D-00-01,
// 5254.004d.0001, 5254-004d-0001, 525400-4d0001, 5254004d0001, and 0:1b:21:a:b:c as in ethers(5).
func ParseMAC(text string) (net.HardwareAddr, bool) {
	text = strings.TrimSpace(text)
	if len(text) > 17 {
		return nil, false
	}
	digits := text
	if i := strings.IndexAny(text, ":-. "); i >= 0 {
		groups := strings.Split(text, text[i:i+1])
		if 12%len(groups) != 0 || len(groups) == 12 || len(groups) == 4 {
			return nil, false
		}
		width := 12 / len(groups)
		for j, g := range groups {
			if width == 2 && len(g) == 1 {
				groups[j] = "0" + g
			} else if len(g) != width {
				return nil, false
			}
		}
		digits = strings.Join(groups, "")
	}
	mac, err := hex.DecodeString(digits)
	return mac, err == nil && len(mac) == 6
}
