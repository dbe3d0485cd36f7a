package e2e

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/lab"
	"dim/internal/testkit"
)

// A machine boots from an image server that joined a head, and keeps running through ten rollouts. The head is killed
// in the middle of three of them, and is off while the machine boots again.
func TestAMachineOfAnImageServerLivesThroughTenRollouts(t *testing.T) {
	needLab(t)
	master := debian(t)
	l := newLevels(t, master, ofAnImageServer(t), "4g")
	testkit.Must(t, l.net.AddAddr(netip.MustParsePrefix("10.77.0.9/24"))) // from where ssh connects
	c := &lab.Cluster{Server: l.servers["head"], Net: l.net}
	var err error
	c.SSH, c.Key, err = lab.NewSSH(l.net, t.TempDir())
	testkit.Must(t, err, os.WriteFile(filepath.Join(master, "root/.ssh/authorized_keys"), []byte(c.Key+"\n"), 0o600))
	l.dim("head", "image", "capture", "compute", "--rollout", "now")

	work := t.TempDir()
	n01 := &machine{name: "n01", mac: "52:54:00:4d:00:01", firmware: lab.BIOS}
	n01.start(t, c, work)
	if n01.running(t, c); t.Failed() {
		t.FailNow()
	}
	n01.ssh(t, c, `echo mine > /etc/own; echo '# mine' >> /etc/profile; sync
		nohup sh -c 'while :; do printf . >> /run/alive; sleep 1; done' > /dev/null 2>&1 & echo $! > /run/alive.pid`)
	for i, s := range rolloutSteps(t, c) {
		if s.change == nil {
			l.dim("head", "rollout", "undo")
		} else {
			s.change(t, master)
			l.rollOut(i == 1 || i == 3 || i == 8)
		}
		n01.awaitOutput(t, c, s)
		n01.checkUnharmed(t, c)
		if t.Failed() {
			t.Fatalf("%d. %s", i+1, s.name)
		}
	}
	l.servers["head"].Kill()
	n01.ends(t, c, "reboot") // ends the guest as well: -no-reboot
	n01.start(t, c, work)
	n01.running(t, c)
	if got := strings.TrimSpace(n01.ssh(t, c, "cat /etc/last /etc/own")); got != "last\nmine" {
		t.Errorf("without the head n01 boots into %q", got)
	}
	n01.ends(t, c, "poweroff")
	l.start("head")
}

// ofAnImageServer returns the description of examples/small.xml with two levels. n01 is a node of is01.
func ofAnImageServer(t *testing.T) string {
	t.Helper()
	text := string(testkit.Value(os.ReadFile("../examples/small.xml"))(t))
	for _, edit := range [][2]string{
		{`gateway="10.77.0.1"`, ""},
		{`roles="head image">`, `roles="head" dhcp="off">`},
		{"</server>", `</server>
  <server name="is01" roles="image"><interface network="boot" address="10.77.0.2"/></server>
  <server name="is02" roles="image" dhcp="off"><interface network="boot" address="10.77.0.3"/></server>`},
		{`<image name="compute"`, `<image name="compute" push="on"`},
		{`<file    path="/etc/hosts" template="hosts.tmpl"/>`, ""},
		{`servers="head"`, `servers="is01"`},
	} {
		if !strings.Contains(text, edit[0]) {
			t.Fatalf("examples/small.xml has no %q", edit[0])
		}
		text = strings.Replace(text, edit[0], edit[1], 1)
	}
	return text
}

// rollOut captures the master and rolls it out. If it is interrupted, the head is killed at some moment and started
// again, and what was not acknowledged is done again.
func (l *levels) rollOut(interrupted bool) {
	l.t.Helper()
	if interrupted {
		ended := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
			defer cancel()
			_, err := l.servers["head"].Dim(ctx, "image", "capture", "compute", "--rollout", "now")
			ended <- err
		}()
		moment := time.Duration(rand.IntN(1000)) * time.Millisecond
		time.Sleep(moment)
		l.servers["head"].Kill()
		l.start("head")
		err := <-ended
		l.t.Logf("the head was killed after %v; the capture: %v", moment, err)
		if err == nil {
			return
		}
	}
	l.dim("head", "image", "capture", "compute", "--rollout", "now")
}
