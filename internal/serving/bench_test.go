package serving

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/meter"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/testkit"
)

const large = `<cluster name="large">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <taxonomy><level name="rack" from="1" to="10"/><level name="node" from="1" to="256"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"><shared path="/usr"/>
    <file path="/etc/rack">{{.Node.Name}} {{.Node.Position.rack}}
</file></image>
  <nodes name="r{rack:02}n{node:03}" each="rack node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.1.{rack}.{node-1}" mac="52:54:00:00:{rack:02x}:{node-1:02x}"/>
  </nodes>
</cluster>
`

// fixed is a declared state that a benchmark sets.
type fixed struct{ now *follow.Declared }

func (f *fixed) Now() *follow.Declared            { return f.now }
func (f *fixed) Stable(fn func(*follow.Declared)) { fn(f.now) }

// newLarge returns a Server of 2560 nodes whose image has two versions that differ in one file.
func newLarge(b *testing.B) (s *Server, declared *fixed, versions [2]image.Version) {
	b.Helper()
	testkit.NeedRoot(b, "it captures owners")
	dir, log := b.TempDir(), slog.New(slog.DiscardHandler)
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "large.xml", XML: []byte(large)}))(b)
	described := follow.Describe(c)
	declared = &fixed{&follow.Declared{
		Cluster: c, Digest: described.Digest, State: coord.State{Description: &described},
	}}
	st := testkit.Value(store.Open(filepath.Join(dir, "store"), store.Options{}))(b)
	set := testkit.Value(replica.Open(replica.Options{Dir: filepath.Join(dir, "replicas"), Source: st, Log: log}))(b)
	tracker := testkit.Value(liveness.Open(filepath.Join(dir, "boots.log"), log))(b)
	b.Cleanup(func() { testkit.Must(b, tracker.Close(), set.Close(), st.Close()) })
	master := filepath.Join(dir, "master")
	testkit.Must(b, os.MkdirAll(filepath.Join(master, "etc/network"), 0o755))
	number := testkit.Counter()
	for i, text := range []string{"auto lo\n", "auto lo # again\n"} {
		testkit.Must(b, os.WriteFile(filepath.Join(master, "etc/network/interfaces"), []byte(text), 0o644))
		o := capture.Options{Image: "compute", Dir: master, Log: log, Reserve: number}
		versions[i] = testkit.Value(capture.Run(b.Context(), st, o))(b).Version
	}
	return New(Options{
		Server: "head", Declared: declared, Store: st, Set: set, Liveness: tracker,
		Push:     push.New(push.Options{Log: log}),
		Class:    func(*cluster.Node, *cluster.Image) meter.Class { return 1 },
		Problems: new(problems.List), Log: log,
	}), declared, versions
}

// show makes v the only version that there is.
func show(b *testing.B, s *Server, declared *fixed, v image.Version) {
	b.Helper()
	now := *declared.now
	now.State.Images = map[string]*coord.Image{v.Image: {Last: v.Number, Versions: []image.Version{v}}}
	declared.now = &now
	s.Reconcile(context.Background())
	if got, _ := s.Shows("r10n256"); s.unsettled.Load() || got.Digest != v.Digest {
		b.Fatalf("not served as declared: %s", s.Problems.Text(problems.Node("r10n256")))
	}
}

func BenchmarkServingAll2560(b *testing.B) {
	s, declared, versions := newLarge(b)
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		if n > 0 {
			b.Fatal("run it with -benchtime 1x: a replica is attached once")
		}
		b.StartTimer()
		show(b, s, declared, versions[0])
	}
}

func BenchmarkSwitchOfAll2560(b *testing.B) {
	s, declared, versions := newLarge(b)
	show(b, s, declared, versions[0])
	for n := 1; b.Loop(); n++ {
		show(b, s, declared, versions[n%2])
	}
}

func BenchmarkStateThatChangesNothingFor2560(b *testing.B) {
	s, declared, versions := newLarge(b)
	show(b, s, declared, versions[0])
	for b.Loop() {
		show(b, s, declared, versions[0])
	}
}
