package changes

import (
	"net"
	"net/netip"
	"reflect"
	"testing"

	"dim/internal/cluster"
)

// Whatever differs, nodes are compared by all their attributes: a field that a later version adds, too.
func TestADifferenceInAnyFieldIsSeen(t *testing.T) {
	other := map[reflect.Type]any{}
	for _, value := range []any{
		"other", 7, true, netip.MustParseAddr("10.9.9.9"), net.HardwareAddr{2, 2, 2, 2, 2, 2},
		[]netip.Addr{netip.MustParseAddr("10.9.9.9")}, &cluster.Network{Name: "other"},
		[]*cluster.Interface{{Name: "other"}}, map[string]int{"other": 1}, &cluster.Image{Name: "other"},
		[]*cluster.Server{{Name: "other"}},
	} {
		other[reflect.TypeOf(value)] = value
	}
	node := parse(t, text).Nodes[0]
	if same := *node; !sameNode(node, &same) || !sameCard(node.Boot(), node.Boot()) {
		t.Fatal("a node differs from itself")
	}
	// Nodes are found by their names. Their other attributes do not have the index and the groups.
	without := map[string]bool{"Name": true, "Index": true, "Groups": true}
	for i := range reflect.TypeFor[cluster.Node]().NumField() {
		changed := *node
		field := reflect.TypeFor[cluster.Node]().Field(i)
		if !field.IsExported() || without[field.Name] {
			continue
		}
		reflect.ValueOf(&changed).Elem().Field(i).Set(reflect.ValueOf(other[field.Type]))
		if sameNode(node, &changed) {
			t.Errorf("another %s of a node is not seen", field.Name)
		}
	}
	for i := range reflect.TypeFor[cluster.Interface]().NumField() {
		changed := *node.Boot()
		field := reflect.TypeFor[cluster.Interface]().Field(i)
		reflect.ValueOf(&changed).Elem().Field(i).Set(reflect.ValueOf(other[field.Type]))
		if sameCard(node.Boot(), &changed) {
			t.Errorf("another %s of a card is not seen", field.Name)
		}
	}
}
