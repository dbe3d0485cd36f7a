package fleet

import (
	"slices"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/image"
)

func TestANodeIsWhatTheServerThatServesItReports(t *testing.T) {
	f := newFleet()
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

func TestWhatServersHoldAndShow(t *testing.T) {
	f := newFleet()
	ref := func(number int) image.Ref { return image.Ref{Image: "compute", Number: number} }
	whole := Version{Version: ref(1), Digest: image.Sum(nil)}
	part := whole
	part.Missing = &Missing{Files: 2, Bytes: 120e6, Rate: 40e6, TimeLeft: 3 * time.Second}
	f.Put("is1", &Report{Versions: []Version{whole}, Nodes: []Node{{Name: "n01", Shows: ref(1)}, {Name: "n02"}}})
	f.Put("is2", &Report{Versions: []Version{part}, Nodes: []Node{{Name: "n03", Shows: ref(2)}}})
	if got := f.Holders(whole.Digest); !slices.Equal(got, []cluster.ServerName{"is1"}) {
		t.Errorf("holders are %v", got)
	}
	if got := f.ShownElsewhere("is2"); len(got) != 1 || got[ref(1)] != "n01" {
		t.Errorf("elsewhere is shown %v", got)
	}
	for _, c := range []struct {
		m    *Missing
		want string
	}{
		{part.Missing, "114.4 MiB to go, 3s at 38.1 MiB/s"},
		{&Missing{Bytes: 7e6}, "6.7 MiB to go at most"},
		{&Missing{Bytes: 7e6, Problem: "no server answers"}, "no server answers"},
	} {
		if got := c.m.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
