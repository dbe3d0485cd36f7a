package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/compare"
	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/liveness"
	"dim/internal/pkgdb"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/reporting"
	"dim/internal/rollout"
	"dim/internal/serving"
	"dim/internal/testkit"
)

// small has the nodes n01 to n09 of this server, and x1 of another one.
const small = `<cluster name="small">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <server name="second" roles="image" dhcp="off"><interface network="boot" address="127.0.0.3"/></server>
  <taxonomy><level name="node" from="1" to="9"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"/>
  <nodes name="n{node:02}" each="node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.0.0.{10+node}" mac="52:54:00:4d:00:{node:02x}"/>
  </nodes>
  <node name="x1" image="compute" servers="second">
    <interface name="eth0" network="boot" address="127.0.0.99" mac="52:54:00:4d:00:99"/>
  </node>
</cluster>
`

// roots are the Roots of a server that serves all nodes but x1: what each shows, by node.
type roots map[cluster.NodeName]int

func (r roots) Shows(n cluster.NodeName) (image.Version, bool) { v, ok := r[n]; return version(v), ok }
func (r roots) Serves(n *cluster.Node) bool                    { return n.Name != "x1" }
func (r roots) Preview(
	context.Context, []*cluster.Node, image.Version, pkgdb.OnConflict,
) (p serving.Preview, err error) {
	return p, nil
}
func (r roots) Left(cluster.NodeName) string                    { return "" }
func (r roots) Reconcile(context.Context)                       {}
func (r roots) Node(cluster.NodeName) (n serving.Node, ok bool) { return n, false }

const readerName = "dim-reader"

// reader is this program as a process that reads untrusted bytes.
var reader = confine.Program{Argv: []string{readerName}}

// TestMain runs the processes that the tests let read.
func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		tasks := map[string]confine.Task{compare.TaskName: compare.Task()}
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, tasks))
	}
	os.Exit(m.Run())
}

func version(number int) image.Version {
	return image.Version{Image: "compute", Number: number, Digest: image.Sum([]byte{byte(number)})}
}

func ref(number int) image.Ref { return image.Ref{Image: "compute", Number: number} }

// newAPI returns an API whose nodes show what r says, and a state in which compute has the versions 1 to 3, of which 1
// is the current one.
func newAPI(t *testing.T, r roots) (*API, *follow.Declared) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	tracker := testkit.Value(liveness.Open(filepath.Join(t.TempDir(), "boots.log"), nil, log))(t)
	t.Cleanup(func() { testkit.Must(t, tracker.Close()) })
	load := func(image.Digest) (image.Tree, error) { return nil, fs.ErrNotExist }
	files := func(image.Entry) readfs.FS { return fstest.MapFS{} }
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(small)}))(t)
	now := &follow.Declared{Cluster: c, State: coord.State{Images: map[string]*coord.Image{
		"compute": {Last: 3, Current: 1, Versions: []image.Version{version(1), version(2), version(3)}},
	}}}
	state := filepath.Join(t.TempDir(), "state.json")
	d := follow.Describe(c)
	f := follow.New(follow.Options{Server: "head", StateFile: state, CoordDir: state, Log: log})
	kept := now.State
	kept.Description = &d
	testkit.Must(t, coord.SaveState(state, kept), f.Load())
	hub := push.New(push.Options{Log: log})
	return New(Info{Server: "head"}, Parts{
		Serving: r, Liveness: tracker, Compare: compare.New(load, files, reader, log),
		Residents: &reporting.Residents{Push: hub}, Follow: f,
		Fleet: testkit.Value(fleet.Open(t.TempDir()))(t), Problems: new(problems.List), Log: log,
	}), now
}

func TestHowFarANodeOfARolloutIs(t *testing.T) {
	type state struct {
		desired, next int // of the node; 0: none
		booting       bool
		problem       string // of the node
		all           string // of all replicas
	}
	for _, tt := range []struct {
		name  string
		node  cluster.NodeName
		shows int // 0: it has no root here
		ring  int
		state state
		want  string
	}{
		{"it is gone", "n99", 0, 0, state{}, "no longer in the description"},
		{"its ring is not declared yet", "n01", 1, 1, state{}, "waits for ring 2"},
		{"it shows the version", "n01", 2, 0, state{desired: 2}, "current"},
		{"it changes at its next boot", "n01", 1, 0, state{next: 2}, "changes when it boots"},
		{"it has booted, and the state does not know", "n01", 2, 0, state{next: 2}, "current"},
		{"it changes to another one", "n01", 2, 0, state{desired: 2, next: 3}, "changes to compute@3 when it boots"},
		{"it was moved since", "n01", 3, 0, state{desired: 3}, "follows compute@3"},
		{"another server serves it", "x1", 0, 0, state{desired: 2},
			"unknown: second, which serves it, has not reported"},
		{"it is booting", "n01", 1, 0, state{desired: 2, booting: true},
			"changes when its boot with compute@1 is over"},
		{"its switch failed", "n01", 1, 0, state{desired: 2, problem: "a mount"}, "not moved: a mount"},
		{"all switches failed", "n01", 1, 0, state{desired: 2, all: "no room"}, "not moved: no room"},
		{"its own reason counts", "n01", 1, 0, state{desired: 2, problem: "a mount", all: "x"}, "not moved: a mount"},
		{"it is not switched yet", "n01", 1, 0, state{desired: 2}, "not moved"},
		{"it has no root yet", "n01", 0, 0, state{desired: 2}, "not served"},
		{"it cannot be served", "n01", 0, 0, state{desired: 2, problem: "no file"}, "not served: no file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := roots{}
			if tt.shows > 0 {
				r[tt.node] = tt.shows
			}
			api, now := newAPI(t, r)
			now.State.Desired, now.State.Next = coord.Refs{}, coord.Refs{}
			if tt.state.desired > 0 {
				now.State.Desired[string(tt.node)] = ref(tt.state.desired)
			}
			if tt.state.next > 0 {
				now.State.Next[string(tt.node)] = ref(tt.state.next)
			}
			if tt.state.booting {
				api.Liveness.Report(tt.node, boot.Event{Stage: boot.StageKernel})
			}
			if tt.state.problem != "" {
				api.Problems.Set(problems.Node(tt.node), errors.New(tt.state.problem))
			}
			if tt.state.all != "" {
				api.Problems.Set(problems.Of(problems.KindReplicas), errors.New(tt.state.all))
			}
			move := &rollout.Rollout{ID: 1, Image: "compute", Version: 2, State: rollout.Running}
			got := api.rolloutNode(now, move, tt.ring, string(tt.node))
			if got.Verdict != tt.want || got.Ring != tt.ring+1 {
				t.Errorf("got %q in ring %d, want %q", got.Verdict, got.Ring, tt.want)
			}
		})
	}
}

func TestWhatANodeThatShowsTheVersionStillRuns(t *testing.T) {
	api, now := newAPI(t, roots{"n01": 2})
	now.State.Desired = coord.Refs{"n01": ref(2)}
	declared := time.Now().Add(-time.Hour)
	const unit = "usr/lib/systemd/system/cron.service"
	move := func(when rollout.When, path string) *rollout.Rollout {
		from, to := version(1), version(2)
		file := func(text string) *image.Entry {
			return &image.Entry{Type: image.Regular, Mode: 0o755, Digest: image.Sum([]byte(text))}
		}
		root := fstest.MapFS{"usr/lib/systemd/systemd": {}, unit: {Data: []byte("ExecStart=/usr/sbin/cron\n")}}
		root["etc/systemd/system/multi-user.target.wants/cron.service"] = root[unit]
		api.Compare = compare.New(nil, func(image.Entry) readfs.FS { return root }, reader, api.Log)
		api.Compare.Keep(&from, &to, []treediff.Change{{Path: path, Old: file("1"), New: file("2")}})
		return &rollout.Rollout{
			ID: 1, Image: "compute", Version: 2, State: rollout.Running, When: when, Current: 1,
			Rings:  []rollout.Ring{{Nodes: rollout.Nodes{"n01"}, Declared: declared}},
			Before: []rollout.Before{{Nodes: rollout.Nodes{"n01"}}},
		}
	}
	const kernel, data = "boot/vmlinuz-6.1.0-1-amd64", "etc/motd"
	states := func(r *rollout.Rollout) control.RolloutNode {
		t.Helper()
		list := api.rolloutNodes(t.Context(), now, r)
		if len(list) != 1 {
			t.Fatalf("%d nodes", len(list))
		}
		return list[0]
	}
	verdict := func(r *rollout.Rollout) string { t.Helper(); return states(r).Verdict }
	if got := verdict(move(rollout.Now, kernel)); got != "current" {
		t.Errorf("a node that is off is %s", got)
	}
	api.Liveness.Called("n01", time.Now())
	for _, tt := range []struct {
		name string
		move *rollout.Rollout
		want string
	}{
		{"another kernel", move(rollout.Now, kernel), "stale until reboot"},
		{"another kernel from the next boot on", move(rollout.Boot, kernel), "current"},
	} {
		if got := verdict(tt.move); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if got := verdict(move(rollout.Now, data)); got != "current" {
		t.Errorf("data: %s", got)
	}
	got := states(move(rollout.Now, unit))
	if got.Verdict != "stale until restart of cron.service, effective after systemctl daemon-reload" ||
		!got.AsOf.Equal(declared) {
		t.Errorf("a unit: %s, as of %v", got.Verdict, got.AsOf)
	}
	const timer = "usr/lib/systemd/system/x.timer"
	got = states(move(rollout.Now, timer))
	if got.Verdict != "current, effective after systemctl daemon-reload" || !got.AsOf.Equal(declared) {
		t.Errorf("a timer: %s, as of %v", got.Verdict, got.AsOf)
	}
	checkConfirmed(t, declared, func(path, confirmed string) control.RolloutNode {
		r := move(rollout.Now, path)
		testkit.Must(t, json.Unmarshal([]byte(confirmed), &r))
		return states(r)
	})
	checkUnread(t, api, move(rollout.Now, data), states)
	api.Liveness.Report("n01", boot.Event{Stage: boot.StageDHCP})
	api.Liveness.Report("n01", boot.Event{Stage: boot.StageHandover})
	api.Liveness.Called("n01", time.Now())
	if got := verdict(move(rollout.Now, kernel)); got != "current" {
		t.Errorf("a node that has booted since is %s", got)
	}
}

// checkUnread checks the verdict of a rollout to a version whose files cannot be read. states returns that of n01.
func checkUnread(t *testing.T, api *API, r *rollout.Rollout, states func(*rollout.Rollout) control.RolloutNode) {
	t.Helper()
	api.Compare = compare.New(nil, func(image.Entry) readfs.FS { return nil }, confine.Program{}, api.Log)
	from, to := version(1), version(2)
	api.Compare.Keep(&from, &to, nil)
	declared := r.Rings[0].Declared
	const want = "current, but what it runs is not known: no program is known that can read it"
	if got := states(r); got.Verdict != want || !got.AsOf.Equal(declared) {
		t.Errorf("not confirmed: %s, as of %v", got.Verdict, got.AsOf)
	}
	at := declared.Add(time.Minute)
	confirmed := fmt.Sprintf(`{"confirmed":[{"nodes":"n01","at":%q}]}`, at.Format(time.RFC3339Nano))
	testkit.Must(t, json.Unmarshal([]byte(confirmed), &r))
	if got := states(r); got.Verdict != current || !got.Confirmed.Equal(at) {
		t.Errorf("confirmed: %s, confirmed %v", got.Verdict, got.Confirmed)
	}
}

// checkConfirmed checks verdicts about nodes that a person has confirmed. states returns that of n01 after a switch
// that has changed a path, of a rollout with these fields in JSON.
func checkConfirmed(t *testing.T, declared time.Time, states func(path, fields string) control.RolloutNode) {
	t.Helper()
	const dir = "usr/lib/systemd/system/"
	for _, tt := range []struct {
		name, path string
		at         time.Time
		want       string
	}{
		{"before the switch", dir + "cron.service", declared.Add(-time.Second),
			"stale until restart of cron.service, effective after systemctl daemon-reload"},
		{"a service", dir + "cron.service", declared.Add(time.Minute), current},
		{"a timer", dir + "x.timer", declared.Add(time.Minute), current},
		{"a kernel", "boot/vmlinuz-6.1.0-1-amd64", declared.Add(time.Minute), "stale until reboot"},
	} {
		got := states(tt.path, fmt.Sprintf(`{"confirmed":[{"nodes":"n01","at":%q}]}`, tt.at.Format(time.RFC3339Nano)))
		done := tt.want == current
		if got.Verdict != tt.want || got.Confirmed.Equal(tt.at) != done || done && !got.AsOf.IsZero() {
			t.Errorf("%s: %s, confirmed %v, as of %v; want %s", tt.name, got.Verdict, got.Confirmed, got.AsOf, tt.want)
		}
	}
}

func TestNodesThatMoveAlikeAreOneMove(t *testing.T) {
	_, now := newAPI(t, roots{})
	now.State.Desired = coord.Refs{"n02": ref(2), "n04": ref(2), "n05": ref(3)}
	r := &rollout.Rollout{Image: "compute", Version: 3, Rings: []rollout.Ring{
		{Nodes: rollout.Nodes{"n01", "n02", "n03", "n04"}}, {Nodes: rollout.Nodes{"n05", "n06", "n99"}}, {},
	}}
	to := func(n *cluster.Node) (image.Ref, bool) { return r.Ref(), n.Name == "n03" }
	var got [][]string
	for _, moves := range movesOf(now, r, to) {
		var ring []string
		for _, m := range moves {
			text := cluster.Fold(m.nodes) + " " + m.from.String() + " " + m.to.String()
			if m.boot {
				text += " boot"
			}
			ring = append(ring, text)
		}
		got = append(got, ring)
	}
	want := [][]string{
		{"n01 compute@1 compute@3", "n[02,04] compute@2 compute@3", "n03 compute@1 compute@3 boot"},
		{"n05 compute@3 compute@3", "n06 compute@1 compute@3"}, // n99 is not in the description
		nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestALongListIsCut(t *testing.T) {
	for want, list := range map[string]string{
		"": "", "a": "a", "a, b, c": "a b c", "a, b, c and 1 more": "a b c d", "a, b, c and 3 more": "a b c d e f",
	} {
		if got := few(strings.Fields(list)); got != want {
			t.Errorf("%q becomes %q, want %q", list, got, want)
		}
	}
}

func TestWhatANodeAsksInVainIsAProblemUntilItBoots(t *testing.T) {
	api, _ := newAPI(t, roots{})
	const reason = "DHCP by eth0: it asks by BOOTP"
	of := func() (list []problems.Problem) {
		for _, p := range api.nodeProblems(t.Context()) {
			if p.About == problems.Node("n01") {
				list = append(list, p)
			}
		}
		return list
	}
	api.Liveness.Refused("n01", boot.Refusal{Text: "TFTP: x", Expected: true})
	if list := of(); len(list) != 0 {
		t.Errorf("a file of another name: %+v", list)
	}
	api.Liveness.Refused("n01", boot.Refusal{Text: reason})
	if list := of(); len(list) != 1 || list[0].Text != "off: "+reason || list[0].Hint == "" {
		t.Errorf("%+v", list)
	}
	n := testkit.Value(api.Node(t.Context(), "n01"))(t)
	if r := n.Details.Refused; r == nil || r.Text != reason || r.Count != 1 {
		t.Errorf("node show has %+v", r)
	}
	api.Liveness.Report("n01", boot.Event{Stage: boot.StageDHCP})
	if list := of(); len(list) != 0 {
		t.Errorf("when it boots: %+v", list)
	}
}

func TestANodeWhoseServerSeemsNotToAnswerIsAProblemHere(t *testing.T) {
	api, _ := newAPI(t, roots{})
	refused := func(times int, notMine bool) string {
		for range times {
			api.Liveness.Refused("x1", boot.Refusal{Text: "DHCP", Expected: true, NotMine: notMine})
		}
		for _, p := range api.nodeProblems(t.Context()) {
			if p.About == problems.Node("x1") {
				return p.Text
			}
		}
		return ""
	}
	if text := refused(vainly-1, true); text != "" {
		t.Errorf("after %d requests: %s", vainly-1, text)
	}
	if text := refused(1, true); !strings.Contains(text, "second, which serves it, seems not to answer") {
		t.Errorf("after %d requests: %q", vainly, text)
	}
	if text := refused(vainly, false); text != "" {
		t.Errorf("when it takes an offer: %s", text)
	}
}

func TestAProblemThatManyNodesHaveIsListedOnce(t *testing.T) {
	var list []problems.Problem
	byText := map[string][]string{}
	began := time.Unix(1e9, 0)
	for i := range 20 {
		p := problems.Problem{
			About: problems.Node(fmt.Sprintf("n%02d", i)), Text: "loader: it does not start",
			Since: began.Add(time.Duration(-i)),
		}
		if i >= 15 {
			p.Text = "mount: no answer"
		}
		list = append(list, p)
		byText[p.Text] = append(byText[p.Text], p.About.Name)
	}
	got := oneForAll(list, byText)
	if len(got) != 6 {
		t.Fatalf("%d problems: %+v", len(got), got)
	}
	first := got[0]
	if first.About.String() != "node n[00-14]" || !first.Since.Equal(began.Add(-14)) || got[1].About.Name != "n15" {
		t.Errorf("%+v, then %+v", first, got[1])
	}
}
