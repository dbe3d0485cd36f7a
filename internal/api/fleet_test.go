package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/testkit"
)

// manyServers is a description with a head and image servers, of which the first has two nodes.
func manyServers(count int) string {
	var b strings.Builder
	b.WriteString(`<cluster name="c" domain="c.example"><network name="boot" subnet="10.0.0.0/16"/>
  <server name="head" roles="head image"><interface network="boot" address="10.0.0.1"/></server>`)
	for i := range count {
		fmt.Fprintf(&b, `<server name="is%02d" roles="image"><interface network="boot" address="10.0.1.%d"/></server>`,
			i+1, i+1)
	}
	b.WriteString(`<taxonomy><level name="node" from="1" to="2"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/m"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="is01">
    <interface name="eth0" network="boot" address="10.0.2.{node}" mac="52:54:00:00:00:{node:02x}"/>
  </nodes></cluster>`)
	return b.String()
}

func TestServersThatDoNotReportAreProblems(t *testing.T) {
	t.Parallel()
	follower, _ := followtest.Open(t, manyServers(10))
	api := &API{
		Info:  Info{Server: "head", Started: time.Now()},
		Parts: Parts{Follow: follower, Fleet: testkit.Value(fleet.Open(t.TempDir()))(t)},
	}
	check := func(when string, want ...string) {
		t.Helper()
		var got []string
		for _, p := range api.otherServerProblems(t.Context()) {
			if p.Hint == "" {
				t.Errorf("%s: no hint: %+v", when, p)
			}
			got = append(got, p.About.String()+": "+p.Text)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("right after the start")
	api.Started = time.Now().Add(-fleet.SilentAfter)
	check("later", "server is[01-10]: 10 servers of 2 nodes never reported here")
	for i := range 9 {
		api.Fleet.Put(cluster.ServerName(fmt.Sprintf("is%02d", i+1)), &fleet.Report{Sent: time.Now()})
	}
	check("when all but one have reported", "server is10: it never reported here")
	api.Fleet.Put("is10", &fleet.Report{
		Sent:     time.Now().Add(-time.Hour),
		Problems: []fleet.Problem{{About: "disk /", Text: "full"}, {About: "boot", Text: "no loader"}},
	})
	check("when the last one reports with a wrong clock",
		"server is10: its clock is 1h0m0s behind this server's",
		"server is10: it reports 2 problems, first disk /: full")
}

func TestNodesOfOtherServersShowWhatWasReported(t *testing.T) {
	t.Parallel()
	follower, _ := followtest.Open(t, manyServers(1))
	api := &API{
		Info: Info{Server: "head"}, Parts: Parts{Follow: follower, Fleet: testkit.Value(fleet.Open(t.TempDir()))(t)},
	}
	check := func(when string, want ...control.Use) {
		t.Helper()
		if _, got := api.use(follower.Now(), "compute"); !cmp.Equal(got, want) {
			t.Errorf("%s: %+v; want %+v", when, got, want)
		}
	}
	check("before the first report", control.Use{Count: 2})
	shows := image.Ref{Image: "compute", Number: 2}
	api.Fleet.Put("is01", &fleet.Report{Nodes: []fleet.Node{{Name: "n01", Shows: shows}}})
	check("after it", control.Use{Version: 2, Count: 1}, control.Use{Count: 1})
}

func TestAServerThatStoppedReportingIsAProblem(t *testing.T) {
	api := &API{}
	at := time.Now().Add(-fleet.SilentAfter)
	text, since := api.faults()[1].find("is1", fleet.Heard{Report: &fleet.Report{}, At: at}, true)
	if text != "it does not report any more" || !since.Equal(at) {
		t.Errorf("%q since %v", text, since)
	}
}
