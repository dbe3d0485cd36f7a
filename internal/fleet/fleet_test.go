package fleet

import (
	"testing"

	"dim/internal/cluster"
	"dim/internal/image"
)

func TestANodeIsWhatTheServerThatServesItReports(t *testing.T) {
	f := New()
	is1, is2 := &cluster.Server{Name: "is1"}, &cluster.Server{Name: "is2"}
	n := &cluster.Node{Name: "n01", Servers: []*cluster.Server{is1, is2}}
	report := func(number int) *Report {
		return &Report{Nodes: []Node{{Name: "n01", Shows: image.Ref{Image: "compute", Number: number}}}}
	}
	check := func(when string, want int) {
		t.Helper()
		got, at, ok := f.Node(n)
		if ok != (want > 0) || got.Shows.Number != want || at.IsZero() == ok {
			t.Errorf("%s: it shows %v, known %v, at %v", when, got.Shows, ok, at)
		}
	}
	check("before any report", 0)
	f.Put("is2", report(1))
	check("after a report of its second server", 0)
	f.Put("is1", report(2))
	check("after a report of its server", 2)
	f.Put("is1", &Report{})
	check("when its server does not report it any more", 0)
	f.Put("is1", report(3))
	f.Keep(func(s cluster.ServerName) bool { return s != "is1" })
	check("when its server is not declared any more", 0)
	if _, ok := f.Server("is2"); !ok {
		t.Error("the report of a declared server is gone")
	}
}
