package fleet

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/testkit"
)

func TestLastReportsOutliveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	f := testkit.Value(Open(dir))(t)
	v := Version{Version: image.Ref{Image: "compute", Number: 1}, Digest: image.Sum(nil)}
	f.Put("is1", &Report{Versions: []Version{v}, Nodes: []Node{{Name: "n01", Shows: v.Version, Stage: "running"}}})
	f.Put("head", &Report{})
	testkit.Must(t, f.Save("head", Due))
	at := func() time.Time {
		h, _ := f.Server("is1")
		return h.At
	}()

	again := testkit.Value(Open(dir))(t)
	n := &cluster.Node{Name: "n01", Servers: []*cluster.Server{{Name: "is1"}}}
	if _, ok := again.Server("is1"); ok {
		t.Error("it counts as a report since the start")
	}
	if _, _, ok := again.Node(n); ok {
		t.Error("the node counts as one that was reported since the start")
	}
	h, ok := again.Last("is1")
	if !ok || !h.FromDisk || !h.At.Equal(at) || !h.Has(v.Version, v.Digest) {
		t.Errorf("the report: %+v, %v", h, ok)
	}
	if got, when, ok := again.LastNode(n); !ok || got.Stage != "running" || !when.Equal(at) {
		t.Errorf("the node: %+v at %v, %v", got, when, ok)
	}
	if got := again.ShownElsewhere("head"); got[v.Version] != "n01" {
		t.Errorf("elsewhere is shown %v", got)
	}
	if _, ok := again.Last("head"); ok {
		t.Error("the server has kept its own report")
	}

	again.Put("is1", &Report{})
	if h, _ := again.Last("is1"); h.FromDisk || len(h.Nodes) > 0 {
		t.Errorf("after another report: %+v", h)
	}
	again.Keep(func(cluster.ServerName) bool { return false })
	testkit.Must(t, again.Save("head", Due))
	if left := testkit.Value(os.ReadDir(dir))(t); len(left) > 0 {
		t.Errorf("of a server that is not declared any more: %v", left)
	}
}

func TestReportsAreNotWrittenOften(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	f := testkit.Value(Open(dir))(t)
	revision := func() int64 { return testkit.Value(readKept(filepath.Join(dir, "is1.json")))(t).Revision }
	put := func(r int64, ago time.Duration) {
		f.servers["is1"] = newHeard(&Report{Revision: r}, time.Now().Add(-ago))
		testkit.Must(t, f.Save("head", Due))
	}
	put(1, time.Hour)
	put(2, time.Hour-time.Second)
	if got := revision(); got != 1 {
		t.Errorf("a second later it was written again: %d", got)
	}
	put(3, time.Hour-time.Minute)
	if got := revision(); got != 3 {
		t.Errorf("a minute later there is %d", got)
	}
	put(4, time.Hour-time.Minute-time.Second)
	testkit.Must(t, f.Save("head", All))
	if got := revision(); got != 4 {
		t.Errorf("at the end there is %d", got)
	}
}

func TestADamagedReportIsLostAlone(t *testing.T) {
	dir := t.TempDir()
	f := testkit.Value(Open(dir))(t)
	f.Put("is1", &Report{})
	testkit.Must(t, f.Save("head", Due))
	for name, text := range map[string]string{
		"is2.json": "{", "is3.json": `{"format":9,"report":{}}`, "is4.json": `{"format":1}`, "other": "x",
	} {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	f, err := Open(dir)
	if _, ok := f.Last("is1"); !ok || err == nil || len(f.kept) != 1 {
		t.Errorf("%v, and it has %v", err, f.kept)
	}
}

func FuzzKeptReport(f *testing.F) {
	f.Add([]byte(`{"format":1,"arrived":"2026-01-02T03:04:05Z","report":{"nodes":[{"node":"n01","stage":"off"}]}}`))
	f.Add([]byte(`{"format":1,"report":{"versions":[{"missing":{"rate":-1}}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := decodeKept(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, v := range h.Versions {
			if v.Missing != nil && v.Missing.Rate < 0 {
				t.Error(fmt.Sprint("a rate that cannot be: ", v.Missing))
			}
		}
	})
}
