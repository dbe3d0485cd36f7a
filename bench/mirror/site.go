package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dim/e2e/agent"
	"dim/internal/lab"
)

const (
	told    = "/mnt/told"    // mounted with a long cache and notifications
	polling = "/mnt/polling" // mounted with a short cache
)

const description = `<?xml version="1.0" encoding="UTF-8"?>
<cluster name="bench" domain="bench.example">
  <network name="boot" subnet="10.77.0.0/24" gateway="10.77.0.1"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/dim/masters/compute" push="on"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
</cluster>
`

// site is a server and one running node.
type site struct {
	*lab.Cluster
	guest *lab.UML
}

func raise(ctx context.Context, o *options) (*site, error) {
	file := filepath.Join(o.dir, "mirror.xml")
	if err := os.WriteFile(file, []byte(description), 0o600); err != nil {
		return nil, err
	}
	c, err := lab.Up(ctx, lab.ClusterSpec{
		Name: fmt.Sprintf("dim-bench-%d", os.Getpid()), Dir: filepath.Join(o.dir, "site"), Bin: o.bin, Master: o.master,
		MasterAt: "/srv/dim/masters/compute", Description: file, Server: "head",
		Address: netip.MustParsePrefix("10.77.0.1/24"),
	})
	if err != nil {
		return nil, err
	}
	s := &site{Cluster: c}
	if err := s.begin(ctx, o); err != nil {
		log, _ := os.ReadFile(c.ServerLog())
		return nil, errors.Join(fmt.Errorf("%w; the server's log:\n%s", err, log[max(0, len(log)-4000):]), s.down())
	}
	return s, nil
}

func (s *site) begin(ctx context.Context, o *options) (err error) {
	if _, err = s.Dim(ctx, "image", "capture", "compute", "--rollout", "now"); err != nil {
		return err
	}
	s.guest, err = lab.StartUML(ctx, lab.UMLSpec{
		Name: "n01", Net: s.Net, Dir: o.dir, Init: o.agent, Addr: netip.MustParsePrefix("10.77.0.11/24"),
		Put: map[string]string{"bin/@dim-push": filepath.Join(o.bin, "dim-init-amd64")},
	})
	if err != nil {
		return err
	}
	for dir, cache := range map[string]int{told: 3600, polling: 3} {
		options := fmt.Sprintf("vers=3,proto=tcp,mountproto=tcp,nolock,hard,actimeo=%d,nocto,"+
			"port=2049,mountport=2049,addr=10.77.0.1,mountaddr=10.77.0.1", cache)
		if err := s.call("Mount",
			agent.MountArgs{Source: "10.77.0.1:/nodes/n01", Dir: dir, Type: "nfs", Options: options},
			&agent.None{}); err != nil {
			return err
		}
	}
	if err := s.call("Start",
		agent.RunArgs{Argv: []string{"/bin/@dim-push", "10.77.0.1:80", "compute:1", told, "/proc"}},
		new(int)); err != nil {
		return err
	}
	return s.until(ctx, "the node is notified of switches", func(show string) bool {
		return strings.Contains(show, "push") && strings.Contains(show, "current")
	})
}

// until waits until the output of `dim node show` satisfies a condition.
func (s *site) until(ctx context.Context, what string, right func(show string) bool) error {
	for ctx.Err() == nil {
		if out, err := s.Dim(ctx, "node", "show", "n01"); err == nil && right(out) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("not in time: %s", what)
}

func (s *site) down() error {
	if s.guest != nil {
		s.guest.Kill()
	}
	return s.Down()
}

// call calls the guest's agent, with a time limit.
func (s *site) call(method string, args, reply any) error {
	select {
	case c := <-s.guest.Agent.Go("Agent."+method, args, reply, nil).Done:
		return c.Error
	case <-time.After(5 * time.Minute):
		return fmt.Errorf("%s: no answer from the guest", method)
	}
}
