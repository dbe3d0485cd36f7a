package metrics

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/dhcp"
	"dim/internal/meter"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/problems"
	"dim/internal/replicate"
	"dim/internal/testkit"
	"dim/internal/tftp"
)

// small has a node, n02, that is a host of an admin network too.
const small = `<cluster name="small">
  <network name="boot" subnet="10.0.0.0/24" insecure="yes"/>
  <network name="admins" subnet="10.9.0.0/24" admin="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="10.0.0.1"/></server>
  <server name="second" roles="image" dhcp="off"><interface network="boot" address="10.0.0.2"/></server>
  <image name="compute" arch="amd64" master="dir:/master"/>
  <node name="n01" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.0.0.11" mac="52:54:00:4d:00:01"/>
  </node>
  <node name="n02" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.0.0.12" mac="52:54:00:4d:00:02"/>
    <interface name="eth1" network="admins" address="10.9.0.12" mac="52:54:00:4d:01:02"/>
  </node>
  <group name="gpu" nodes="n02"/>
  <group name="big" nodes="n02"/>
</cluster>
`

// counters are an RPC and an NFS in which each counter is another number.
type counters struct{}

func (counters) ClassStats(c meter.Class) []oncrpc.ProcStats {
	p := oncrpc.ProcStats{
		Program: "nfs", Proc: "READ", Calls: 10 + uint64(c), Errors: 2, BytesIn: 100, BytesOut: 1000,
		Busy: 3 * time.Second,
	}
	p.Latency[0], p.Latency[2], p.Latency[22] = 4, 5, 1
	return []oncrpc.ProcStats{p, {Program: "nfs", Proc: "WRITE"}}
}

func (counters) Stats() oncrpc.Stats {
	return oncrpc.Stats{
		Conns: 1, Accepted: 2, Refused: 3, Stalled: 4, Broken: 5, Rejected: 6, Repeated: 7, HandedOver: 8, Memory: 9,
	}
}

func (counters) Refused() nfs.Refusals { return nfs.Refusals{Port: 10, Export: 11} }

func description(t *testing.T) *cluster.Cluster {
	t.Helper()
	return testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(small)}))(t)
}

// get asks for the metrics from an address, over a connection to 10.0.0.1.
func get(t *testing.T, from string) (status int, text string) {
	t.Helper()
	c := description(t)
	classes := &Classes{}
	for _, n := range c.Nodes {
		classes.Of(n, n.Image)
	}
	h := Handler(Sources{
		Cluster: func() *cluster.Cluster { return c }, RPC: counters{}, NFS: counters{}, Classes: classes,
		Flushes: func() (waits, flushes, failures uint64) { return 12, 13, 14 },
		Stages:  func() map[string]int { return map[string]int{"running": 1, "off": 2} },
		Disks:   func() []control.Disk { return []control.Disk{{Bytes: 16, BytesFree: 15}} },
		DHCP: func() dhcp.Stats {
			return dhcp.Stats{
				Received: 20, Answered: 21, Port: 22, Malformed: 23, Interface: 24, Unknown: 25, Other: 26, Silent: 27,
				Unsent: 28,
			}
		},
		TFTP:   func() tftp.Stats { return tftp.Stats{Done: 30, Failed: 31, Refused: 32, Dropped: 33, Malformed: 34} },
		Lost:   func() map[string]uint64 { return map[string]uint64{"dhcp": 40, "tftp": 41} },
		Closed: func() map[string]uint64 { return map[string]uint64{"nfs": 50, "http": 51} },
		Pulled: func() map[string]replicate.Counts {
			return map[string]replicate.Counts{"head": {Bytes: 60, Failed: 61, Slow: 62, Refused: 63}}
		},
		Problems: func(context.Context) []problems.Problem {
			return []problems.Problem{{About: problems.Image("a")}, {About: problems.Image("b")}}
		},
	})
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}
	r := httptest.NewRequest("GET", "/metrics", nil)
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	r.RemoteAddr = from
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestWhoMayReadTheMetrics(t *testing.T) {
	for _, tt := range []struct {
		name, from string
		want       int
	}{
		{"a program on this machine", "127.0.0.1:5000", http.StatusOK},
		{"a program on this machine by its other address", "10.0.0.1:5000", http.StatusOK},
		{"a host of an admin network", "10.9.0.5:5000", http.StatusOK},
		{"a node", "10.0.0.11:700", http.StatusForbidden},
		{"a node by its address in an admin network", "10.9.0.12:700", http.StatusForbidden},
		{"another server", "10.0.0.2:700", http.StatusForbidden},
		{"nobody", "10.8.0.1:700", http.StatusForbidden},
		{"a caller without an address", "@", http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, text := get(t, tt.from); status != tt.want {
				t.Errorf("status %d, want %d: %.80s", status, tt.want, text)
			}
		})
	}
}

func TestWhatIsCountedIsShown(t *testing.T) {
	_, text := get(t, "127.0.0.1:5000")
	for _, want := range []string{
		`dim_nfs_call_seconds_count{groups="",image="",procedure="READ",program="nfs"} 10`,
		`dim_nfs_call_seconds_count{groups="",image="compute",procedure="READ",program="nfs"} 11`,
		`dim_nfs_call_seconds_count{groups="big,gpu",image="compute",procedure="READ",program="nfs"} 12`,
		`dim_nfs_call_seconds_sum{groups="",image="",procedure="READ",program="nfs"} 3`,
		`dim_nfs_call_seconds_bucket{groups="",image="",procedure="READ",program="nfs",le="4e-06"} 9`,
		`dim_nfs_call_seconds_bucket{groups="",image="",procedure="READ",program="nfs",le="4.194304"} 10`,
		`dim_nfs_errors_total{groups="",image="",procedure="READ",program="nfs"} 2`,
		`dim_nfs_received_bytes_total{groups="",image="",procedure="READ",program="nfs"} 100`,
		`dim_nfs_sent_bytes_total{groups="",image="",procedure="READ",program="nfs"} 1000`,
		"dim_nfs_connections 1", "dim_nfs_connections_total 2", "dim_nfs_repeated_total 7", "dim_nfs_relieved_total 8",
		"dim_nfs_buffer_bytes 9",
		`dim_connections_refused_total{service="nfs"} 50`, `dim_connections_refused_total{service="http"} 51`,
		`dim_nfs_refused_total{reason="stalled"} 4`,
		`dim_nfs_refused_total{reason="malformed"} 5`, `dim_nfs_refused_total{reason="unknown_call"} 6`,
		`dim_nfs_refused_total{reason="port"} 10`, `dim_nfs_refused_total{reason="export"} 11`,
		"dim_sync_waits_total 12", "dim_sync_flushes_total 13", "dim_sync_failures_total 14",
		`dim_nodes{stage="running"} 1`, `dim_nodes{stage="off"} 2`,
		`dim_problems{kind="image"} 2`, `dim_problems{kind="shared state"} 0`,
		"dim_disk_free_bytes 15", "dim_disk_bytes 16",
		"dim_dhcp_messages_total 20", "dim_dhcp_answers_total 21",
		`dim_dhcp_ignored_total{reason="port"} 22`, `dim_dhcp_ignored_total{reason="malformed"} 23`,
		`dim_dhcp_ignored_total{reason="interface"} 24`, `dim_dhcp_ignored_total{reason="unknown"} 25`,
		`dim_dhcp_ignored_total{reason="other_server"} 26`, `dim_dhcp_ignored_total{reason="no_answer"} 27`,
		`dim_dhcp_ignored_total{reason="unsent"} 28`,
		`dim_tftp_requests_total{result="done"} 30`, `dim_tftp_requests_total{result="failed"} 31`,
		`dim_tftp_requests_total{result="refused"} 32`, `dim_tftp_requests_total{result="dropped"} 33`,
		`dim_tftp_requests_total{result="malformed"} 34`,
		`dim_pull_bytes_total{server="head"} 60`, `dim_pull_failures_total{reason="failed",server="head"} 61`,
		`dim_pull_failures_total{reason="slow",server="head"} 62`,
		`dim_pull_failures_total{reason="refused",server="head"} 63`,
		`dim_receive_drops_total{service="dhcp"} 40`, `dim_receive_drops_total{service="tftp"} 41`,
		"go_goroutines ", "process_cpu_seconds_total ",
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(text, `procedure="WRITE"`) {
		t.Error("a procedure that was never called is shown")
	}
}

func TestTheGuideHasEverySeriesAndNoOther(t *testing.T) {
	guide := string(testkit.Value(os.ReadFile("../../docs/guide/metrics.md"))(t))
	_, text := get(t, "127.0.0.1:5000")
	var shown []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (dim_\w+)`).FindAllStringSubmatch(text, -1) {
		shown = append(shown, m[1])
	}
	var explained []string
	for _, m := range regexp.MustCompile("`(dim_\\w+)`").FindAllStringSubmatch(guide, -1) {
		explained = append(explained, m[1])
	}
	for _, list := range [][]string{shown, explained} {
		slices.Sort(list)
	}
	if diff := cmp.Diff(shown, slices.Compact(explained)); diff != "" {
		t.Errorf("shown and not explained (-), explained and not shown (+):\n%s", diff)
	}
	labels := regexp.MustCompile(`dim_\w+\{(?:reason|result|service)="(\w+)"\}`)
	for _, m := range labels.FindAllStringSubmatch(text, -1) {
		if !strings.Contains(guide, "`"+m[1]+"`") {
			t.Errorf("the reason %s is not explained", m[1])
		}
	}
}

func TestClassesAreBounded(t *testing.T) {
	c := &Classes{}
	first := c.get(class{"compute", "0"})
	for i := range 100 {
		c.get(class{"compute", fmt.Sprint(i)})
	}
	other := c.get(class{"compute", "one more"})
	if c.get(class{"compute", "0"}) != first || other != c.get(class{"compute", "yet another"}) || other == first {
		t.Error("the classes beyond the bound are not one")
	}
	n := 0
	c.each(func(k class, of meter.Class) {
		if n++; of == 0 || of == other && k.image != "other" {
			t.Errorf("class %d is %v", of, k)
		}
	})
	if n != maxClasses+1 {
		t.Errorf("%d classes", n)
	}
}
