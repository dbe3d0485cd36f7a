package rollout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"dim/internal/coord"
)

func TestRingsDivideAllNodes(t *testing.T) {
	nodes := make([]string, 45)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("n%02d", i)
	}
	for text, want := range map[string]string{
		"": "45", "rest": "45", "1,10%,rest": "1 5 39", "1, 10%, rest": "1 5 39", "50,rest": "45", "100%": "45",
		"1,1,rest": "1 1 43", "10%,50%,100%": "5 23 17", "1": "", "10%": "", "0,rest": "", "-1,rest": "", "0%,rest": "",
		"101%": "", "x,rest": "", "1,rest,1": "", ",rest": "", "1.5,rest": "",
		strings.Repeat("1,", 200) + "rest": "",
	} {
		rings, err := Rings(text, nodes)
		var sizes []string
		n := 0
		for _, r := range rings {
			sizes = append(sizes, fmt.Sprint(len(r.Nodes)))
			n += len(r.Nodes)
		}
		got := strings.Join(sizes, " ")
		if got != want || (err == nil) != (want != "") || err == nil && n != len(nodes) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
	if rings, err := Rings("1,rest", nil); err != nil || len(rings) != 1 {
		t.Errorf("no nodes: %v, %v", rings, err)
	}
}

func TestARolloutOfSomeNodesKeepsTheCurrentVersion(t *testing.T) {
	s := newSite(3)
	if _, err := s.declare(2, Now, "12"); err != nil {
		t.Fatal(err)
	}
	s.next(t, 1, s.seen(), nil)
	if r := s.load(t, 1); r.State != done {
		t.Fatal(r.State)
	}
	want(t, s, "221111111")
	if _, err := s.declare(3, Now, "123456789"); err != nil {
		t.Fatal(err)
	}
	want(t, s, "333333333")
	if len(s.state.Desired) != 0 || s.state.Images["compute"].Current != 3 {
		t.Errorf("after a rollout of all: %v, current is %d", s.state.Desired, s.state.Images["compute"].Current)
	}
	if _, err := Undo(s.state, 1, "", s.now); !errors.Is(err, ErrConflict) {
		t.Errorf("undo of the first: %v", err)
	}
	undo(t, s, 2, "")
	want(t, s, "221111111")
	undo(t, s, 1, "")
	want(t, s, "111111111")
	if _, err := Undo(s.state, 1, "", s.now); !errors.Is(err, ErrState) {
		t.Errorf("undo twice: %v", err)
	}
}

func TestRingsFollowOneAfterTheOther(t *testing.T) {
	s := newSite(2)
	if _, err := s.declare(2, Now, "1 23 456789", withCommands); err != nil {
		t.Fatal(err)
	}
	for _, after := range []string{"211111111", "222111111", "222222222"} {
		want(t, s, after)
		if step := s.next(t, 1, s.seen(), nil); step.Enter != hooking {
			t.Fatalf("got %+v", step)
		}
		if step := s.next(t, 1, s.seen(), nil); step.Run != "hook" {
			t.Fatalf("got %+v", step)
		}
		if step := s.next(t, 1, s.seen(), nil); !strings.Contains(step.Wait, "soak time: 1m0s left") {
			t.Fatalf("got %+v", step)
		}
		s.now = s.now.Add(time.Minute)
		if step := s.next(t, 1, s.seen(), nil); step.Run != "check" {
			t.Fatalf("got %+v", step)
		}
	}
	if r := s.load(t, 1); r.State != done || r.Ended != s.now || s.state.Images["compute"].Current != 2 {
		t.Errorf("at the end: %+v", r)
	}
}

func TestTwoRolloutsOfOneNodeConflict(t *testing.T) {
	s := newSite(3)
	if _, err := s.declare(2, Now, "1 23"); err != nil {
		t.Fatal(err)
	}
	_, err := s.declare(3, Now, "34")
	if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "rollout 1 (compute@2) is still running on n3") {
		t.Errorf("a node in two: %v", err)
	}
	if _, err := s.declare(3, Now, "45"); err != nil {
		t.Errorf("others: %v", err)
	}
	if _, err := s.declare(4, Now, "6"); !errors.Is(err, coord.ErrNotFound) {
		t.Errorf("to a version that was removed: %v", err)
	}
	c, err := Stop(s.state, 1, 1, s.now)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	if _, err := s.declare(3, Now, "34"); err != nil {
		t.Errorf("after the first was stopped: %v", err)
	}
	want(t, s, "213331111")
}

func TestRecordsOfOldRolloutsAreRemoved(t *testing.T) {
	s := newSite(3)
	if _, err := s.declare(2, Now, "8 9"); err != nil { // it stays under way
		t.Fatal(err)
	}
	for i := range kept + 20 {
		if _, err := s.declare(2+i%2, Now, "1"); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.state.Rollouts); n > kept+2 {
		t.Errorf("%d are kept", n)
	}
	s.load(t, 1)
	s.load(t, kept+21)
}

func TestARolloutIsDoneWhenAllItsNodesShowTheVersion(t *testing.T) {
	for _, when := range []When{Now, Boot} {
		s := newSite(2)
		if _, err := s.declare(2, when, "12"); err != nil {
			t.Fatal(err)
		}
		behind := s.seen()
		behind["n2"] = Seen{Report: &Report{Shows: compute(1)}}
		if step := s.next(t, 1, behind, nil); step.Wait == "" || s.load(t, 1).State != Running {
			t.Errorf("%s: with a node behind: %+v", when, step)
		}
		s.boot("n1")
		s.boot("n2")
		r := s.load(t, 1)
		s.advance(t, r, Step{Shown: 2})
		if r := s.load(t, 1); r.State != done || r.Shown == nil || *r.Shown != 2 {
			t.Errorf("%s: at the end it is %+v", when, r)
		}
	}
}

func TestARolloutThatOnlyWaitsIsReplaced(t *testing.T) {
	s := newSite(3)
	if _, err := s.declare(2, Boot, "123"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.declare(3, Now, "1"); err != nil {
		t.Fatal(err)
	}
	want(t, s, "31(2)1(2)111111")
	if r := s.load(t, 1); r.State != Running {
		t.Errorf("with nodes left it is %s", r.State)
	}
	if _, err := s.declare(3, Boot, "23"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.declare(2, Now, "123"); err != nil { // of the nodes of all three
		t.Fatal(err)
	}
	for id := 1; id <= 3; id++ {
		if r := s.load(t, id); r.State != replaced || r.Ended != s.now || r.Shown != nil {
			t.Errorf("rollout %d: %+v", id, r)
		}
	}
	if _, err := s.declare(3, Boot, "4 5"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.declare(2, Now, "4"); !errors.Is(err, ErrConflict) {
		t.Errorf("a rollout with another ring is taken over: %v", err)
	}
}

func TestStopCancelsBoots(t *testing.T) {
	s := newSite(3)
	if _, err := s.declare(2, Boot, "123456789"); err != nil {
		t.Fatal(err)
	}
	s.boot("n2")
	s.boot("n3")
	want(t, s, "1(2)221(2)1(2)1(2)1(2)1(2)1(2)")
	c, err := Stop(s.state, 1, 2, s.now)
	if err != nil {
		t.Fatal(err)
	}
	s.apply(c)
	want(t, s, "122111111")
	if r := s.load(t, 1); r.State != stopped || *r.Shown != 2 || s.state.Images["compute"].Current != 1 {
		t.Errorf("%+v, current is %d", r, s.state.Images["compute"].Current)
	}
	s.boot("n1")
	want(t, s, "122111111")
	undo(t, s, 1, "")
	want(t, s, "12(1)2(1)111111")
}
