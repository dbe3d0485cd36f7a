package problems

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestAProblemLastsUntilItsSubjectSucceeds(t *testing.T) {
	var l List
	n1 := Node("n01")
	for _, step := range []struct {
		what    string
		err     error
		changed bool
	}{
		{"success without a problem", nil, false},
		{"a failure", errors.New("disk full"), true},
		{"the same failure again", errors.New("disk full"), false},
		{"another failure", errors.New("no such version"), true},
		{"success", nil, true},
		{"success again", nil, false},
	} {
		if got := l.Set(n1, step.err); got != step.changed {
			t.Errorf("%s: changed is %v", step.what, got)
		}
		want := ""
		if step.err != nil {
			want = step.err.Error()
		}
		if got := l.Text(n1); got != want {
			t.Errorf("%s: the problem is %q, want %q", step.what, got, want)
		}
	}
}

func TestAllListsWhatWasSetAndWhatSourcesTell(t *testing.T) {
	var l List
	l.Set(Of(KindSharedState), errors.New("lost"))
	l.Set(Node("n02"), errors.New("b"))
	l.Set(Node("n01"), errors.New("c"))
	l.Set(Image("compute"), errors.New("a"))
	l.Add(func(context.Context) []Problem {
		return []Problem{{About: Subject{KindDisk, "/var/lib/dim"}, Text: "full"}}
	})
	l.Add(func(context.Context) []Problem { return []Problem{{About: Of(KindDescription), Text: "wrong"}} })
	want := []Problem{
		{About: Of(KindDescription), Text: "wrong"},
		{About: Of(KindSharedState), Text: "lost"},
		{About: Subject{KindDisk, "/var/lib/dim"}, Text: "full"},
		{About: Image("compute"), Text: "a"},
		{About: Node("n01"), Text: "c"},
		{About: Node("n02"), Text: "b"},
	}
	if diff := cmp.Diff(want, l.All(t.Context()), cmpopts.IgnoreFields(Problem{}, "Since")); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	l.Remove(func(s Subject) bool { return s.Kind == KindNode })
	if l.Text(Node("n02")) != "" || l.Text(Image("compute")) == "" {
		t.Error("Remove removed other problems than those of nodes")
	}
}

func TestSubjectsReadAsPeopleWriteThem(t *testing.T) {
	for want, s := range map[string]Subject{
		"node n01": Node("n01"), "image compute": Image("compute"), "shared state": Of(KindSharedState),
	} {
		if got := s.String(); got != want {
			t.Errorf("%#v is %q, want %q", s, got, want)
		}
	}
}

func TestEveryKindHasARank(t *testing.T) {
	for _, k := range []Kind{
		KindDescription, KindSharedState, KindServer, KindBoot, KindDisk, KindImage, KindRollout, KindReplicas,
		KindNode, KindJournal, KindMounts, KindMachine,
	} {
		if k.order() < 0 {
			t.Errorf("the kind %q has no rank", k)
		}
	}
}
