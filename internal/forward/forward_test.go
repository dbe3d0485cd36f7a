package forward

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/control/server"
	"dim/internal/follow/followtest"
	"dim/internal/testkit"
)

// small has n1 on the head, n2 and n3 on is2, and n4 on is3.
const small = `<cluster name="small">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <server name="is2" roles="image" dhcp="off"><interface network="boot" address="127.0.0.3"/></server>
  <server name="is3" roles="image" dhcp="off"><interface network="boot" address="127.0.0.4"/></server>
  <taxonomy><level name="node" from="1" to="4"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"/>
  <node name="n1" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.11" mac="52:54:00:4d:00:01"/></node>
  <node name="n2" image="compute" servers="is2">
    <interface name="eth0" network="boot" address="127.0.0.12" mac="52:54:00:4d:00:02"/></node>
  <node name="n3" image="compute" servers="is2 head">
    <interface name="eth0" network="boot" address="127.0.0.13" mac="52:54:00:4d:00:03"/></node>
  <node name="n4" image="compute" servers="is3">
    <interface name="eth0" network="boot" address="127.0.0.14" mac="52:54:00:4d:00:04"/></node>
</cluster>
`

// daemon is the Backend of one server: its answers have the server's name.
type daemon struct {
	control.Backend
	name string
}

func (d *daemon) Node(_ context.Context, name string) (control.Node, error) {
	return control.Node{Name: name, Text: d.name}, nil
}

func (d *daemon) NodeBoots(_ context.Context, node string) (control.NodeBoots, error) {
	return control.NodeBoots{Node: node, Server: d.name}, nil
}

func (d *daemon) NodeFiles(_ context.Context, node, path string) ([]control.NodeFile, error) {
	return []control.NodeFile{{Path: path, Content: node + " by " + d.name}}, nil
}

func (d *daemon) Reset(_ context.Context, node string, r control.ResetRequest) ([]control.SavedEntry, error) {
	if !r.Force {
		return nil, control.Errorf(control.Conflict, "reset %s: it runs", node).WithHint("force")
	}
	return []control.SavedEntry{{Why: d.name}}, nil
}

func (d *daemon) NodeChanges(_ context.Context, _ string, yield func(control.Change) bool) error {
	for _, path := range []string{"/a", "/b", "/c"} {
		if !yield(control.Change{Path: path, What: d.name}) {
			return nil
		}
	}
	return nil
}

func (d *daemon) Check(_ context.Context, set string) ([]control.CheckResult, error) {
	return []control.CheckResult{{Node: set, Image: d.name}}, nil
}

func (d *daemon) Snapshots(_ context.Context, set string) ([]control.Snapshot, error) {
	return []control.Snapshot{{Node: set, Image: d.name}}, nil
}

func (d *daemon) NodeDiff(_ context.Context, a, b string) (control.NodeDiff, error) {
	return control.NodeDiff{}, errors.New(d.name + " compares " + a + " and " + b)
}

func (d *daemon) NodeSide(_ context.Context, node string) (control.NodeSide, error) {
	own := func(path control.Path, text string) control.NodeHas {
		return control.NodeHas{Path: path, Of: control.OfOwn, Text: text, HasContent: true}
	}
	return control.NodeSide{
		NodeDiffSide: control.NodeDiffSide{Node: node},
		Has:          []control.NodeHas{own("/who", d.name), own("/same", "file"), own("/other", "file")},
	}, nil
}

func (d *daemon) NodeContents(_ context.Context, _ string, r control.ContentsRequest) (list []string, err error) {
	for _, path := range r.Paths {
		digest := "the same"
		if path == "/other" {
			digest = d.name
		}
		list = append(list, digest)
	}
	return list, nil
}

// Machines: one that only this server has heard of, and one that all servers have. The head heard of it last.
func (d *daemon) Machines(context.Context) ([]control.Machine, error) {
	at := time.Unix(1_700_000_000, 0)
	own := control.Machine{MAC: "52:54:00:aa:00:01", First: at, Last: at, Server: d.name}
	shared := control.Machine{MAC: "52:54:00:aa:00:02", First: at, Last: at.Add(time.Minute), Server: d.name}
	if d.name == "head" {
		own.MAC = "52:54:00:aa:00:09"
		shared.First, shared.Last = at.Add(time.Second), at.Add(time.Hour)
	}
	return []control.Machine{own, shared}, nil
}

func (d *daemon) HostKeys(context.Context) ([]control.HostKey, error) {
	return []control.HostKey{{Node: "on" + d.name}}, nil
}

func (d *daemon) RemoveLayers(
	_ context.Context, r control.RemoveLayersRequest,
) ([]control.RemovedLayer, error) {
	if r.Nodes == "on"+d.name || r.Nodes == "" {
		return []control.RemovedLayer{{Server: d.name, Node: "on" + d.name}}, nil
	}
	return nil, control.Errorf(control.NotFound, "no files of %s are left", r.Nodes)
}

func (d *daemon) Rollout(context.Context, control.RolloutRequest) (control.Rollout, error) {
	return control.Rollout{
		OnConflict: "master",
		Rings: []control.RolloutRing{
			{Moves: []control.RolloutMove{{Nodes: "n[1-2]", From: "compute@1", To: "compute@2"}}},
			{Moves: []control.RolloutMove{
				{Nodes: "n3", From: "compute@1", To: "compute@2"}, {Nodes: "n4", From: "compute@1", To: "compute@2"},
			}},
		},
		Own: []control.OwnChanges{{Nodes: "n1", Count: 1, Paths: 1}},
	}, nil
}

func (d *daemon) PreviewOwn(_ context.Context, r control.PreviewRequest) (list []control.OwnChanges, err error) {
	for _, m := range r.Moves {
		list = append(list, control.OwnChanges{Nodes: m.Nodes, Count: 1, Paths: 2})
	}
	return append(list, control.OwnChanges{Nodes: "n2", Count: 1, Notes: []string{r.OnConflict}}), nil
}

func (d *daemon) RolloutStatus(_ context.Context, id int) (control.Rollout, error) {
	r := control.Rollout{ID: id, Own: []control.OwnChanges{{Nodes: d.name}}}
	for node, server := range map[string]string{"n1": "head", "n2": "is2", "n4": "is3"} {
		r.States = append(r.States, control.RolloutNode{Node: node, Server: server, Verdict: "by " + d.name})
	}
	return r, nil
}

// peers are the servers that answer.
type peers map[cluster.ServerName]*httptest.Server

func (p peers) To(s cluster.ServerName) (*http.Client, string) {
	if p[s] == nil {
		return http.DefaultClient, "http://127.0.0.1:1"
	}
	return p[s].Client(), p[s].URL
}

// newBackend returns the Backend of the head. is2 answers, is3 does not.
func newBackend(t *testing.T) *Backend {
	t.Helper()
	is2 := httptest.NewServer(http.StripPrefix(path, server.NodeCalls(&daemon{name: "is2"})))
	t.Cleanup(is2.Close)
	return New(&daemon{name: "head"}, Options{
		Server: "head", Follow: followtest.Unavailable(t, small), Peers: peers{"is2": is2},
	})
}

func TestACallAboutANodeIsAnsweredByItsServer(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	for node, want := range map[string]string{"n1": "head", "n2": "is2", "n3": "is2", "unknown": "head"} {
		n, err := b.Node(t.Context(), node)
		if err != nil || n.Text != want || n.Name != node {
			t.Errorf("%s: %+v, %v; want %s", node, n, err, want)
		}
	}
	if list, err := b.Reset(t.Context(), "n2", control.ResetRequest{Force: true}); err != nil || list[0].Why != "is2" {
		t.Errorf("%+v, %v", list, err)
	}
	_, err := b.Reset(t.Context(), "n2", control.ResetRequest{})
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Code != control.Conflict || e.Message != "reset n2: it runs" || e.Hint != "force" {
		t.Errorf("the other server's refusal: %v", err)
	}
	var got []string
	testkit.Must(t, b.NodeChanges(t.Context(), "n3", func(c control.Change) bool {
		got = append(got, c.Path+" "+c.What)
		return len(got) < 2
	}))
	if diff := cmp.Diff([]string{"/a is2", "/b is2"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := b.NodeDiff(t.Context(), "n2", "n3"); err == nil || err.Error() != "is2 compares n2 and n3" {
		t.Errorf("two nodes of one server: %v", err)
	}
	d := testkit.Value(b.NodeDiff(t.Context(), "n1", "n3"))(t)
	want := []control.NodeDiffPath{
		{Path: "/other", Of: "own", A: "file, other content", B: "file, other content"},
		{Path: "/who", Of: "own", A: "head", B: "is2"},
	}
	if diff := cmp.Diff(want, d.Paths); diff != "" || d.A.Node != "n1" || d.B.Node != "n3" {
		t.Errorf("nodes of two servers: %+v\n%s", d, diff)
	}
	if _, err := b.NodeDiff(t.Context(), "n1", "n4"); !isCode(err, control.Unavailable) {
		t.Errorf("a node of a server that does not answer: %v", err)
	}
}

func TestBootsAndNodeFilesAreThoseOfTheServer(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	for node, want := range map[string]string{"n1": "head", "n3": "is2"} {
		boots := testkit.Value(b.NodeBoots(t.Context(), node))(t)
		if boots.Node != node || boots.Server != want {
			t.Errorf("%s: %+v", node, boots)
		}
		files := testkit.Value(b.NodeFiles(t.Context(), node, "/etc/a b"))(t)
		if len(files) != 1 || files[0].Path != "/etc/a b" || files[0].Content != node+" by "+want {
			t.Errorf("%s: %+v", node, files)
		}
	}
	if _, err := b.NodeBoots(t.Context(), "n4"); !isCode(err, control.Unavailable) {
		t.Errorf("a server that does not answer: %v", err)
	}
}

func isCode(err error, code control.Code) bool {
	e, ok := errors.AsType[*control.Error](err)
	return ok && e.Code == code
}

func TestAServerThatDoesNotAnswerIsNamedAndTheRestIsThere(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	n, err := b.Node(t.Context(), "n4")
	if err != nil || n.Text != "head" || n.Problem == "" {
		t.Errorf("what was reported: %+v, %v", n, err)
	}
	if _, err := b.Saved(t.Context(), "n4"); !isCode(err, control.Unavailable) {
		t.Errorf("a call that only the server can answer: %v", err)
	}
	checks, err := b.Check(t.Context(), "")
	testkit.Must(t, err)
	got := map[string]string{}
	for _, c := range checks {
		got[c.Node] = c.Image
		if len(c.Problems) > 0 {
			got[c.Node] = "a problem"
		}
	}
	if diff := cmp.Diff(map[string]string{"n1": "head", "n2": "is2", "n3": "is2", "n4": "a problem"}, got); diff != "" {
		t.Error(diff)
	}
	snapshots, err := b.Snapshots(t.Context(), "n[2-4]")
	testkit.Must(t, err)
	if len(snapshots) != 2 || snapshots[0].Node != "n[2-3]" || snapshots[0].Image != "is2" ||
		snapshots[1].Node != "n4" || snapshots[1].Problem == "" || snapshots[1].Image != "" {
		t.Errorf("%+v", snapshots)
	}
	if _, err := b.Check(t.Context(), "n[1-9"); !isCode(err, control.Invalid) {
		t.Errorf("a broken node set: %v", err)
	}
}

func TestTheServersKnowBetterHowFarTheirNodesAre(t *testing.T) {
	t.Parallel()
	r := testkit.Value(newBackend(t).RolloutStatus(t.Context(), 3))(t)
	got := map[string]string{}
	for _, n := range r.States {
		got[n.Node] = n.Verdict
	}
	if diff := cmp.Diff(map[string]string{"n1": "by head", "n2": "by is2", "n4": "by head"}, got); diff != "" {
		t.Error(diff)
	}
	var own []string
	for _, o := range r.Own {
		own = append(own, o.Nodes)
	}
	if !slices.Equal(own, []string{"head,is2"}) { // they have set aside the same
		t.Errorf("set aside on %v", own)
	}
}

func TestOnlyCallsThatHeadsForwardAreAnsweredForOthers(t *testing.T) {
	t.Parallel()
	h := server.NodeCalls(&daemon{name: "is2"})
	for _, call := range []string{
		"GET /v1/description", "POST /v1/description", "POST /v1/tags", "POST /v1/prune",
	} {
		method, target, _ := strings.Cut(call, " ")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", call, w.Code)
		}
	}
}

func TestWhatRemovedNodesHaveLeftIsAskedOfAllServers(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	list := testkit.Value(b.RemoveLayers(t.Context(), control.RemoveLayersRequest{DryRun: true}))(t)
	if len(list) != 3 || list[0].Node != "onhead" || list[1].Server != "is2" || list[1].Node != "onis2" ||
		list[2].Server != "is3" || list[2].Problem == "" || list[2].Node != "" {
		t.Errorf("all: %+v", list)
	}
	list = testkit.Value(b.RemoveLayers(t.Context(), control.RemoveLayersRequest{Nodes: "onis2"}))(t)
	if len(list) != 2 || list[0].Node != "onis2" || list[1].Problem == "" {
		t.Errorf("of a node of is2: %+v", list)
	}
}

func TestAMachineThatSeveralServersHaveHeardOfIsListedOnce(t *testing.T) {
	t.Parallel()
	list := testkit.Value(newBackend(t).Machines(t.Context()))(t)
	var got []string
	for _, m := range list {
		got = append(got, m.MAC[15:]+" "+m.Server+" "+m.Last.Sub(time.Unix(1_700_000_000, 0)).String())
	}
	if want := []string{"02 is2 1h0m0s", "01 is2 0s", "09 head 0s"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestHostKeysAreAskedOfAllServersWithNodes(t *testing.T) {
	t.Parallel()
	list := testkit.Value(newBackend(t).HostKeys(t.Context()))(t)
	if len(list) != 3 || list[0].Node != "onhead" || list[1].Node != "onis2" || list[2].Node != "" ||
		!strings.HasPrefix(list[2].Problem, "server is3: ") {
		t.Errorf("got %+v", list)
	}
}

func TestADryRunTellsWhatNodesOfOtherServersLose(t *testing.T) {
	t.Parallel()
	r := testkit.Value(newBackend(t).Rollout(t.Context(), control.RolloutRequest{DryRun: true}))(t)
	for i := range r.Own {
		o := &r.Own[i]
		if (o.Unknown != "") != (o.Nodes == "n4") {
			t.Errorf("not known: %+v", *o)
		}
		o.Unknown = ""
	}
	want := []control.OwnChanges{
		{Nodes: "n[1-3]", Count: 3, Paths: 5}, {Nodes: "n2", Count: 1, Notes: []string{"master"}},
		{Nodes: "n4", Count: 1},
	}
	if diff := cmp.Diff(want, r.Own, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}
