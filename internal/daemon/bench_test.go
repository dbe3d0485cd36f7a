package daemon

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"dim/internal/capture"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/pki"
	"dim/internal/problems"
	"dim/internal/testkit"
)

const large = `<cluster name="large">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <taxonomy><level name="rack" from="1" to="10"/><level name="node" from="1" to="256"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"><shared path="/usr"/><file path="/etc/rack">{{.Node.Name}} {{.Node.Position.rack}}
</file></image>
  <nodes name="r{rack:02}n{node:03}" each="rack node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.1.{rack}.{node-1}" mac="52:54:00:00:{rack:02x}:{node-1:02x}"/>
  </nodes>
</cluster>
`

// newLarge returns a daemon, not served, of 2560 nodes whose image has two versions that differ in one file.
func newLarge(b *testing.B) (*daemon, [2]image.Version) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: captures owners")
	}
	dir := b.TempDir()
	file, data, master := filepath.Join(dir, "cluster.xml"), filepath.Join(dir, "data"), filepath.Join(dir, "master")
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	check(os.WriteFile(file, []byte(large), 0o600))
	_, err := pki.Init(data)
	check(err)
	d, err := newDaemon(Config{Data: data, ClusterFile: file, As: "head", InitDir: dir, Log: slog.New(slog.DiscardHandler)})
	check(err)
	b.Cleanup(d.close)
	check(d.load())
	applied := *d.declared()
	described := describe(applied.cluster)
	applied.state.Description = &described
	d.current.Store(&applied)
	d.listening, _ = d.cluster().Server("head")
	close(d.tried)
	check(os.MkdirAll(filepath.Join(master, "etc/network"), 0o755))
	var versions [2]image.Version
	number := testkit.Counter()
	for i, text := range []string{"auto lo\n", "auto lo # again\n"} {
		check(os.WriteFile(filepath.Join(master, "etc/network/interfaces"), []byte(text), 0o644))
		r, err := capture.Run(context.Background(), d.store, capture.Options{Image: "compute", Dir: master, Log: d.log, Reserve: number})
		check(err)
		versions[i] = r.Version
	}
	return d, versions
}

// show makes v the only version there is.
func (d *daemon) show(b *testing.B, v image.Version) {
	b.Helper()
	now := *d.declared()
	now.state.Images = map[string]*coord.Image{v.Image: {Last: v.Number, Versions: []image.Version{v}}}
	d.current.Store(&now)
	d.reconcile(context.Background())
	if x := d.exports.node("r10n256"); d.unsettled.Load() || x.fs.Version().Digest != v.Digest {
		b.Fatalf("not served as declared: %s", d.wrong.Text(problems.Node("r10n256")))
	}
}

func BenchmarkServingAll2560(b *testing.B) {
	d, versions := newLarge(b)
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		if n > 0 {
			b.Fatal("run it with -benchtime 1x: a replica is attached once")
		}
		b.StartTimer()
		d.show(b, versions[0])
	}
}

func BenchmarkSwitchOfAll2560(b *testing.B) {
	d, versions := newLarge(b)
	d.show(b, versions[0])
	for n := 1; b.Loop(); n++ {
		d.show(b, versions[n%2])
	}
}

func BenchmarkStateThatChangesNothingFor2560(b *testing.B) {
	d, versions := newLarge(b)
	d.show(b, versions[0])
	for b.Loop() {
		d.show(b, versions[0])
	}
}

func BenchmarkStatusOf2560(b *testing.B) {
	d, versions := newLarge(b)
	d.show(b, versions[0])
	for b.Loop() {
		if s, err := d.Status(context.Background()); err != nil || s.Nodes != 2560 {
			b.Fatal(s.Nodes, err)
		}
	}
}
