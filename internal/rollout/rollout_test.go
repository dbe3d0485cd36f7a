package rollout

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dim/internal/coord"
	"dim/internal/image"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// tester is what tests and random tests have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
}

// world is a shared state in memory, and what its nodes show.
type world struct {
	s     coord.State
	shows coord.Refs
	now   time.Time
}

// newWorld has versions 1 to n of compute, of which the first is current, and the nodes n1 to n9.
func newWorld(n int) *world {
	w := &world{shows: coord.Refs{}, now: start}
	im := &coord.Image{Last: n, Current: 1}
	for i := 1; i <= n; i++ {
		im.Versions = append(im.Versions, image.Version{Image: "compute", Number: i})
	}
	w.s = coord.State{
		Images: map[string]*coord.Image{"compute": im}, Desired: coord.Refs{}, Next: coord.Refs{}, Rollouts: map[int]json.RawMessage{},
	}
	w.look()
	return w
}

func compute(version int) image.Ref { return image.Ref{Image: "compute", Number: version} }

func all() []string {
	var names []string
	for i := 1; i <= 9; i++ {
		names = append(names, fmt.Sprint("n", i))
	}
	return names
}

// put does what coord does with a change, and what the servers do then.
func (w *world) put(c coord.Change) {
	merge := func(into, from coord.Refs) {
		maps.Copy(into, from)
		maps.DeleteFunc(into, func(_ string, r image.Ref) bool { return r.IsZero() })
	}
	im := *w.s.Images["compute"]
	if n := c.Current["compute"]; n > 0 {
		im.Current = n
	}
	w.s.Images = map[string]*coord.Image{"compute": &im}
	w.s.Desired, w.s.Next, w.s.Rollouts = maps.Clone(w.s.Desired), maps.Clone(w.s.Next), maps.Clone(w.s.Rollouts)
	merge(w.s.Desired, c.Desired)
	merge(w.s.Next, c.Next)
	for id, v := range c.Rollouts {
		if w.s.Rollouts[id] = v; v == nil {
			delete(w.s.Rollouts, id)
		}
	}
	w.look()
}

func (w *world) look() {
	for _, n := range all() {
		w.shows[n], _ = w.s.Follows(n, "compute")
	}
}

// boot lets a node boot.
func (w *world) boot(n string) {
	if next := w.s.Next[n]; !next.IsZero() {
		w.put(Booted(w.s, coord.Refs{n: next}))
	}
}

// declare begins a rollout; nodes are given by their numbers, rings separated by blanks: "1 23 456".
func (w *world) declare(t tester, version int, when When, rings string, more ...func(*Rollout)) (Rollout, error) {
	t.Helper()
	r := Rollout{Image: "compute", Version: version, When: when}
	count := 0
	for part := range strings.FieldsSeq(rings) {
		var ring Ring
		for _, c := range part {
			ring.Nodes = append(ring.Nodes, "n"+string(c))
			count++
		}
		r.Rings = append(r.Rings, ring)
	}
	r.All = count == len(all())
	for _, m := range more {
		m(&r)
	}
	r, c, err := Declare(w.s, r, all(), w.now)
	if err == nil {
		w.put(c)
	}
	return r, err
}

func (w *world) load(t tester, id int) Rollout {
	t.Helper()
	r, ok, err := Load(w.s, id)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return r
}

// next takes a rollout one step on and returns it; command tells how a command ends.
func (w *world) next(t tester, id int, seen map[string]Seen, command error) Step {
	t.Helper()
	r := w.load(t, id)
	step := r.Next(seen, w.now)
	switch {
	case step.Wait != "":
		return step
	case step.Run != "" && command == nil:
		w.advance(t, r, r.After())
	case step.Run != "":
		w.advance(t, r, Step{Pause: command.Error()})
	default:
		w.advance(t, r, step)
	}
	return step
}

func (w *world) advance(t tester, r Rollout, s Step) {
	t.Helper()
	c, err := Advance(w.s, r, s, all(), w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.put(c)
}

// seen is what there is to see when all is well.
func (w *world) seen() map[string]Seen {
	m := map[string]Seen{}
	for n, ref := range w.shows {
		m[n] = Seen{Presence: Served, Answers: true, Report: Report{Shows: ref, Stage: "running"}}
	}
	return m
}

// text is what the nodes follow, by their versions, and in brackets from their next boot on.
func (w *world) text() string {
	var b strings.Builder
	for _, n := range all() {
		fmt.Fprint(&b, w.shows[n].Number)
		if next := w.s.Next[n]; !next.IsZero() {
			fmt.Fprintf(&b, "(%d)", next.Number)
		}
	}
	return b.String()
}

func want(t *testing.T, w *world, text string) {
	t.Helper()
	if got := w.text(); got != text {
		t.Errorf("nodes follow %s, want %s", got, text)
	}
}

func TestRingsDivideAllNodes(t *testing.T) {
	nodes := make([]string, 45)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("n%02d", i)
	}
	for text, want := range map[string]string{
		"": "45", "rest": "45", "1,10%,rest": "1 5 39", "1, 10%, rest": "1 5 39", "50,rest": "45", "100%": "45", "1,1,rest": "1 1 43",
		"10%,50%,100%": "5 23 17", "1": "", "10%": "", "0,rest": "", "-1,rest": "", "0%,rest": "", "101%": "", "x,rest": "", ",rest": "", "1.5,rest": "",
		strings.Repeat("1,", 200) + "rest": "",
	} {
		rings, err := Rings(text, nodes)
		var sizes []string
		n := 0
		for _, r := range rings {
			sizes = append(sizes, fmt.Sprint(len(r.Nodes)))
			n += len(r.Nodes)
		}
		if got := strings.Join(sizes, " "); got != want || (err == nil) != (want != "") || err == nil && n != len(nodes) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	if rings, err := Rings("1,rest", nil); err != nil || len(rings) != 1 {
		t.Errorf("no nodes: %v, %v", rings, err)
	}
}

func TestARolloutOfSomeNodesLeavesTheCurrentVersion(t *testing.T) {
	w := newWorld(3)
	r, err := w.declare(t, 2, Now, "12")
	if err != nil || r.State != Done {
		t.Fatal(r.State, err)
	}
	want(t, w, "221111111")
	if _, err := w.declare(t, 3, Now, "123456789"); err != nil {
		t.Fatal(err)
	}
	want(t, w, "333333333")
	if len(w.s.Desired) != 0 || w.s.Images["compute"].Current != 3 {
		t.Errorf("after a rollout of all: %v, current is %d", w.s.Desired, w.s.Images["compute"].Current)
	}
	if _, err := Undo(w.s, 1, "", w.now); !errors.Is(err, ErrConflict) {
		t.Errorf("undo of the first: %v", err)
	}
	undo(t, w, 2, "")
	want(t, w, "221111111")
	undo(t, w, 1, "")
	want(t, w, "111111111")
	if _, err := Undo(w.s, 1, "", w.now); !errors.Is(err, ErrState) {
		t.Errorf("undo twice: %v", err)
	}
}

func undo(t tester, w *world, id int, when When) {
	t.Helper()
	c, err := Undo(w.s, id, when, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.put(c)
}

func withCommands(r *Rollout) { r.Soak, r.Hook, r.Check = time.Minute, "hook", "check" }

func TestRingsFollowOneAfterTheOther(t *testing.T) {
	w := newWorld(2)
	if _, err := w.declare(t, 2, Now, "1 23 456789", withCommands); err != nil {
		t.Fatal(err)
	}
	for _, after := range []string{"211111111", "222111111", "222222222"} {
		want(t, w, after)
		if s := w.next(t, 1, w.seen(), nil); s.Enter != Hooking {
			t.Fatalf("%+v", s)
		}
		if s := w.next(t, 1, w.seen(), nil); s.Run != "hook" {
			t.Fatalf("%+v", s)
		}
		if s := w.next(t, 1, w.seen(), nil); !strings.Contains(s.Wait, "soak time: 1m0s left") {
			t.Fatalf("%+v", s)
		}
		w.now = w.now.Add(time.Minute)
		if s := w.next(t, 1, w.seen(), nil); s.Run != "check" {
			t.Fatalf("%+v", s)
		}
	}
	if r := w.load(t, 1); r.State != Done || r.Ended != w.now || w.s.Images["compute"].Current != 2 {
		t.Errorf("at the end: %+v", r)
	}
}

func TestWhatDoesNotGoWellPauses(t *testing.T) {
	for name, c := range map[string]struct {
		phase  Phase
		change func(Seen) Seen
		fails  error
		why    string
	}{
		"a node cannot be moved": {Switching, func(s Seen) Seen { s.Shows, s.Problem = compute(1), "disk full"; return s }, nil, "n1 cannot be moved: disk full"},
		"the hook fails":         {Hooking, nil, errors.New("exit status 1"), "exit status 1"},
		"a node is silent":       {Gating, func(s Seen) Seen { s.Answers, s.Stage = false, "dhcp"; return s }, nil, `n1 ran before and is now at "dhcp"`},
		"the check fails":        {Gating, nil, errors.New("exit status 2"), "exit status 2"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(2)
			if _, err := w.declare(t, 2, Now, "1 23456789", withCommands); err != nil {
				t.Fatal(err)
			}
			for w.load(t, 1).Phase != c.phase {
				w.next(t, 1, w.seen(), nil)
			}
			seen := w.seen()
			if c.change != nil {
				seen["n1"] = c.change(seen["n1"])
			}
			for range 5 { // its time is up
				if w.load(t, 1).State == Running {
					w.next(t, 1, seen, c.fails)
				}
				w.now = w.now.Add(Patience + time.Second)
			}
			r := w.load(t, 1)
			if r.State != Paused || r.Reason != c.why {
				t.Fatalf("%s: %q, want %q", r.State, r.Reason, c.why)
			}
			want(t, w, "211111111")
			change, err := Resume(w.s, 1, w.now)
			if err != nil {
				t.Fatal(err)
			}
			w.put(change)
			for range 20 {
				if w.load(t, 1).State == Running {
					w.next(t, 1, w.seen(), nil)
					w.now = w.now.Add(time.Minute)
				}
			}
			if r := w.load(t, 1); r.State != Done {
				t.Errorf("after it was resumed: %+v", r)
			}
			want(t, w, "222222222")
		})
	}
}

func TestANodeThatWasOffIsNotMissed(t *testing.T) {
	w := newWorld(2)
	if _, err := w.declare(t, 2, Now, "1 23456789"); err != nil {
		t.Fatal(err)
	}
	r := w.load(t, 1)
	r.Rings[0].Ran = nil
	r.Phase = Gating
	if s := r.Next(map[string]Seen{"n1": {Presence: Served, Report: Report{Shows: compute(2)}}}, w.now); s != (Step{}) {
		t.Errorf("%+v", s)
	}
}

func TestARolloutForTheNextBootChangesNodesAsTheyBoot(t *testing.T) {
	w := newWorld(3)
	if _, err := w.declare(t, 3, Now, "9"); err != nil {
		t.Fatal(err)
	}
	r, err := w.declare(t, 2, Boot, "123456789")
	if err != nil || r.State != Done {
		t.Fatal(r.State, err)
	}
	want(t, w, "1(2)1(2)1(2)1(2)1(2)1(2)1(2)1(2)3(2)")
	w.boot("n1")
	w.boot("n9")
	w.boot("n1")
	want(t, w, "21(2)1(2)1(2)1(2)1(2)1(2)1(2)2")
	undo(t, w, 2, "")
	want(t, w, "2(1)11111112(3)")
	w.boot("n1")
	w.boot("n9")
	want(t, w, "111111113")
	if len(w.s.Next) > 0 || w.s.Images["compute"].Current != 1 || len(w.s.Desired) != 1 {
		t.Errorf("in the end: %v, %v", w.s.Next, w.s.Desired)
	}
}

func TestRingsForTheNextBootWaitForBoots(t *testing.T) {
	w := newWorld(2)
	if _, err := w.declare(t, 2, Boot, "1 23456789"); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(100 * time.Hour)
	if s := w.next(t, 1, w.seen(), nil); s.Wait != "n1 to boot" {
		t.Errorf("%+v", s)
	}
	w.boot("n1")
	for range 3 {
		if w.load(t, 1).State == Running {
			w.next(t, 1, w.seen(), nil)
		}
	}
	want(t, w, "21(2)1(2)1(2)1(2)1(2)1(2)1(2)1(2)")
}

func TestTwoRolloutsOfOneNodeConflict(t *testing.T) {
	w := newWorld(3)
	if _, err := w.declare(t, 2, Now, "1 23"); err != nil {
		t.Fatal(err)
	}
	_, err := w.declare(t, 3, Now, "34")
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "rollout 1 of compute@2 to n3 is running") {
		t.Errorf("a node in two: %v", err)
	}
	if _, err := w.declare(t, 3, Now, "45"); err != nil {
		t.Errorf("others: %v", err)
	}
	if _, err := w.declare(t, 4, Now, "6"); !errors.Is(err, coord.ErrNotFound) {
		t.Errorf("to a version that was removed: %v", err)
	}
	c, err := Stop(w.s, 1, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.put(c)
	if _, err := w.declare(t, 3, Now, "34"); err != nil {
		t.Errorf("after the first was stopped: %v", err)
	}
	want(t, w, "213331111")
}

func TestAStepRestsOnWhatWasSeen(t *testing.T) {
	w := newWorld(2)
	if _, err := w.declare(t, 2, Now, "1 23"); err != nil {
		t.Fatal(err)
	}
	r := w.load(t, 1)
	c, err := Pause(w.s, 1, "by hand", w.now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	w.put(c)
	if _, err := Advance(w.s, r, Step{}, nil, w.now); !errors.Is(err, ErrConflict) {
		t.Errorf("a step of a rollout that was paused: %v", err)
	}
}

func TestOldRolloutsAreForgotten(t *testing.T) {
	w := newWorld(3)
	if _, err := w.declare(t, 2, Now, "8 9"); err != nil { // stays under way
		t.Fatal(err)
	}
	for i := range kept + 20 {
		if _, err := w.declare(t, 2+i%2, Now, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.s.Rollouts); n > kept+2 {
		t.Errorf("%d are kept", n)
	}
	w.load(t, 1)
	w.load(t, kept+21)
}

// Whatever was done: undoing all of it, the last first, gives back what each node followed.
func TestUndoingGivesBackWhatWasFollowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(4)
		var texts []string
		for i := range rapid.IntRange(1, 6).Draw(t, "rollouts") {
			texts = append(texts, w.text())
			rings := rapid.SampledFrom([]string{"123456789", "1 23456789", "1", "23 45", "678 9"}).Draw(t, "rings")
			r := Rollout{Image: "compute", Version: rapid.IntRange(1, 4).Draw(t, "version"), When: Now}
			var n int
			for part := range strings.FieldsSeq(rings) {
				var ring Ring
				for _, c := range part {
					ring.Nodes = append(ring.Nodes, "n"+string(c))
					n++
				}
				r.Rings = append(r.Rings, ring)
			}
			r.All = n == len(all())
			_, c, err := Declare(w.s, r, nil, w.now)
			if err != nil {
				t.Fatal(err)
			}
			w.put(c)
			for rapid.Bool().Draw(t, "on") && w.load(t, i+1).State == Running {
				w.next(t, i+1, w.seen(), nil)
			}
			if r := w.load(t, i+1); r.UnderWay() {
				c, err := Stop(w.s, i+1, w.now)
				if err != nil {
					t.Fatal(err)
				}
				w.put(c)
			}
		}
		for i := len(texts); i > 0; i-- {
			undo(t, w, i, "")
			if got := w.text(); got != texts[i-1] {
				t.Fatalf("after undoing rollout %d: %s, before it %s", i, got, texts[i-1])
			}
		}
	})
}
