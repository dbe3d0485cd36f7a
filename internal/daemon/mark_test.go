package daemon

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/peer"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// An image server whose disk was replaced by an older copy serves no nodes until a person accepts that.
func TestAnOldDiskIsNotServedUntilItIsAccepted(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	mark := func() string { return head.mark("is1") }
	testkit.Eventually(t, "the head has a mark of the disk", func() bool { return mark() != "" })
	testkit.Must(t, is1.stop())
	old := is1.data + ".old"
	if out, err := exec.Command("cp", "-a", is1.data, old).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	first := mark()
	is1.start()
	write(t, is1.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "mine\n")
	testkit.Eventually(t, "the head has another mark", func() bool { return mark() != first })
	testkit.Must(t, is1.stop())

	testkit.Must(t, os.RemoveAll(is1.data), os.Rename(old, is1.data))
	is1.start()
	testkit.Eventually(t, "the server says that its disk is old", func() bool {
		p := is1.problem("server is1")
		return strings.Contains(p.Text, "it serves no nodes: its disk is an old copy") &&
			strings.Contains(p.Hint, "dim server accept-older is1")
	})
	if is1.mounts() {
		t.Error("it serves n01")
	}
	testkit.Eventually(t, "the head says so, too", func() bool {
		return strings.Contains(head.problem("server is1").Text, "its disk is an old copy")
	})
	testkit.Must(t, is1.stop())
	is1.start() // which does not make the disk younger
	testkit.Eventually(t, "it follows the head", func() bool { return is1.status().Coord.OK })
	if is1.mounts() {
		t.Error("after another start it serves n01")
	}

	accept := control.ServerChange{Do: "accept-older", DryRun: true}
	testkit.Value(head.client().ChangeServer(t.Context(), "is1", accept))(t)
	accept.DryRun = false
	if done := testkit.Value(head.client().ChangeServer(t.Context(), "is1", accept))(t); done.Note == "" {
		t.Errorf("accepted: %+v", done)
	}
	testkit.Eventually(t, "it serves n01", is1.mounts)
	testkit.Eventually(t, "the head has a mark of that disk", func() bool { return mark() != "" })
	if p := is1.problem("server is1"); p.Text != "" {
		t.Errorf("it has the problem %+v", p)
	}
}

// mark returns the mark that a head has of a server's disk.
func (s *site) mark(server string) string { return s.declared().Servers[server].Mark }

// A second machine reports with the identity of is1: its disk is a copy.
func TestACopyOfAServerIsFound(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	described := testkit.Value(cluster.Load(head.file))(t)
	client := peer.NewClient(peer.Options{
		Credentials: testkit.Value(pki.Open(is1.data))(t), Declared: func() *cluster.Cluster { return described },
		Refused: func(peer.Identity) error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	defer client.Close()
	testkit.Eventually(t, "the head has a mark of the disk", func() bool { return head.mark("is1") != "" })
	first := head.mark("is1")
	body := testkit.Value(json.Marshal(fleet.Report{Start: "copy", Started: time.Now(), Mark: first}))(t)
	report := func() int {
		hc, base := client.To("head")
		resp, err := hc.Post(base+fleet.Path, "application/json", bytes.NewReader(body))
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	testkit.Eventually(t, "the reports of the copy are refused", func() bool { return report() == http.StatusConflict })
	p := head.problem("server is1")
	if !strings.Contains(p.Text, "two machines report as it: 127.0.0.") || !strings.Contains(p.Hint, "switch off") {
		t.Errorf("the head says %+v", p)
	}
	testkit.Eventually(t, "the disk gets a mark that the copy does not have", func() bool {
		report()
		return head.mark("is1") != first
	})
	if p := is1.problem("server is1"); strings.Contains(p.Text, "old copy") {
		t.Errorf("the older machine says %+v", p)
	}
	if list := testkit.Value(head.client().Nodes(t.Context(), "n01"))(t); list[0].Version != 1 {
		t.Errorf("the head says of n01 %+v", list[0])
	}
}
