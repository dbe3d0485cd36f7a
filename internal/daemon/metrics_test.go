package daemon

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// metrics asks for the metrics from an address.
func (s *site) metrics(from string) (status int, text string) { return s.get(from, "/metrics") }

// get asks the HTTP service for a path from an address.
func (s *site) get(from, path string) (status int, text string) {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c := http.Client{Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
	r, err := c.Get(fmt.Sprintf("http://%s:%d%s", s.addr, s.ports[1], path))
	testkit.Must(s.t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	testkit.Must(s.t, err)
	return r.StatusCode, string(b)
}

func TestCallsAreCountedByClassAndByNode(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.71")
	s.describe(`<group name="gpu" nodes="n02"/>`, `name="compute" arch="amd64"`,
		`name="compute" arch="amd64" durability="async-metadata"`)
	s.start()
	s.capture("compute")
	one, two := s.mount("127.0.0.11", "/nodes/n01"), s.mount("127.0.0.12", "/nodes/n02")
	write(t, one, "etc", "own", "text")
	if got := read(t, two, "etc/motd"); got != "one\n" {
		t.Errorf("n02 reads %q", got)
	}
	if _, err := s.nfs("127.0.0.13", 0).Tree("/nodes/n01"); err == nil {
		t.Error("n03 mounts the replica of n01")
	}

	status, text := s.metrics("127.0.0.1")
	if status != http.StatusOK {
		t.Fatalf("metrics: status %d", status)
	}
	for _, want := range []string{
		`dim_nfs_call_seconds_count{groups="",image="compute",procedure="CREATE",program="nfs"} 1`,
		`dim_nfs_call_seconds_bucket{groups="gpu",image="compute",procedure="READ",program="nfs",le="+Inf"} 1`,
		`dim_nfs_errors_total{groups="",image="",procedure="MNT",program="mount"} 1`,
		`dim_nfs_refused_total{reason="export"} 1`,
		`dim_nodes{stage="off"} `,
		"dim_sync_flushes_total ", "process_cpu_seconds_total ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
	for _, from := range []string{"127.0.0.11", "127.0.0.14"} {
		if status, _ := s.metrics(from); status != http.StatusForbidden {
			t.Errorf("node %s sees the metrics: status %d", from, status)
		}
	}

	n, err := s.client().Node(t.Context(), "n01")
	testkit.Must(t, err)
	u := n.Details.Usage
	if u == nil || u.Calls < 3 || u.Sent == 0 || u.Received == 0 || u.Files != 2 || u.Layer == 0 {
		t.Errorf("usage of n01: %+v", u)
	}
	if n.Details.Durable != "async-metadata" {
		t.Errorf("durability of n01: %q", n.Details.Durable)
	}
	v, err := s.client().Version(t.Context(), "compute")
	testkit.Must(t, err)
	if v.Durable != "async-metadata" {
		t.Errorf("durability of compute: %q", v.Durable)
	}
}

func TestAQuotaThatIsUsedUpIsAProblem(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.79")
	s.describe(`<group name="small" nodes="n01"><quota files="2"/></group>`)
	s.start()
	s.capture("compute")
	fs := s.mount("127.0.0.11", "/nodes/n01")
	about := func() (text string) {
		for _, p := range s.status().Problems {
			if p.About == "node n01" {
				text += p.Text
			}
		}
		return text
	}
	if got := about(); got != "" {
		t.Errorf("before: %s", got)
	}
	write(t, fs, "etc", "own", "text") // the directory and the file
	if got, want := about(), "running: its quota is used up: 2 of 2 files"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
