package api

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/dhcp"
	"dim/internal/testkit"
)

// bootNode reports a boot of a node whose kernel took a time to start, up to a last stage.
func bootNode(api *API, node cluster.NodeName, began time.Time, kernel time.Duration, last boot.Stage) {
	at := began
	for _, e := range []boot.Event{
		{Stage: boot.StageDHCP, Detail: "PXE"}, {Stage: boot.StageInitramfs, Detail: boot.DetailFetched},
		{Stage: boot.StageInitramfs}, {Stage: boot.StageMount}, {Stage: boot.StageHandover}, {Stage: boot.StageRunning},
	} {
		e.Time = at
		api.Liveness.Report(node, e)
		if e.Stage == last && e.Detail == "" {
			return
		}
		at = at.Add(time.Second)
		if e.Detail == boot.DetailFetched {
			at = at.Add(kernel)
		}
	}
}

func TestWhyANodeDoesNotBoot(t *testing.T) {
	api, _ := newAPI(t, roots{})
	api.Unknown = dhcp.NewMachines(10)
	now := time.Now()
	hourAgo := now.Add(-time.Hour)
	for _, node := range []cluster.NodeName{"n01", "n02", "n03", "n04"} {
		bootNode(api, node, hourAgo, 3*time.Second, boot.StageRunning)
	}
	bootNode(api, "n05", hourAgo, 41*time.Second, boot.StageRunning)
	bootNode(api, "n06", now.Add(-10*time.Minute), 3*time.Second, boot.StageMount)
	bootNode(api, "n07", now.Add(-3*time.Second), 0, boot.StageMount)
	for node, want := range map[string]string{
		"n01": "well: it ran 8.0 s after its first request",
		"n05": "the fetch of the initramfs and the start of the kernel took 42 s, " +
			"where 4 nodes of image compute took 4.0 s",
		"n06": "its root is mounted, and its init was not started",
		"n07": "well: it has been booting for ",
		"n08": "it has not asked for a boot",
	} {
		got := testkit.Value(api.NodeBoots(t.Context(), node))(t)
		text := got.Finding
		if got.Well {
			text = "well: " + text
		}
		if !strings.HasPrefix(text, want) || got.Node != node || got.Well == (got.Hint != "") {
			t.Errorf("%s: %q, hint %q; want %q", node, text, got.Hint, want)
		}
	}
	slow := testkit.Value(api.NodeBoots(t.Context(), "n05"))(t)
	if s := slow.Boots[0].Steps[1]; !s.Slow || s.Took != 42 || s.Median != 4 || s.After != 1 ||
		slow.Compared != "4 nodes of image compute" {
		t.Errorf("the slow step: %+v of %+v", s, slow)
	}
	for node, want := range map[string]control.Code{"x1": control.Elsewhere, "n99": control.NotFound} {
		_, err := api.NodeBoots(t.Context(), node)
		if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != want {
			t.Errorf("%s: %v", node, err)
		}
	}
}

// The cluster has 52:54:00:4d:00:01 to 09 and 52:54:00:4d:00:99.
func TestTheClosestCardIsFound(t *testing.T) {
	_, now := newAPI(t, roots{})
	for mac, want := range map[string]string{
		"52:54:00:4d:00:0a": "n09", // its second card, perhaps
		"52:54:00:4d:00:11": "n09",
		"52:54:00:4d:00:12": "n02", // one digit of it
		"52:54:00:4d:00:00": "n01",
		"42:54:00:4d:00:05": "n05",
		"52:54:00:4d:00:98": "x1",
		"52:54:00:4d:10:12": "",
		"00:00:00:00:00:00": "",
		"ff:ff:ff:ff:ff:ff": "",
	} {
		got := ""
		if n, _ := closest(now.Cluster, testkit.Value(net.ParseMAC(mac))(t)); n != nil {
			got = string(n.Name)
		}
		if got != want {
			t.Errorf("%s is closest to %q, not %q", mac, got, want)
		}
	}
}
