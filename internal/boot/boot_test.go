package boot

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/image"
)

// pair is a kernel and an initramfs in memory, or the error that there is none.
type pair struct {
	kernel, initramfs []byte
	err               error
}

type memFile struct{ *bytes.Reader }

func (memFile) Close() error { return nil }

func (p *pair) Assets(context.Context, *cluster.Node) (kernel, initramfs Asset, err error) {
	return asset(p.kernel), asset(p.initramfs), p.err
}

func asset(b []byte) Asset {
	return Asset{Digest: image.Sum(b), Size: int64(len(b)), Open: func() (File, error) { return memFile{bytes.NewReader(b)}, nil }}
}

// fixture is a cluster of two servers and two nodes, seen from one server.
type fixture struct {
	*Boot
	cluster *cluster.Cluster
	assets  *pair
	now     time.Time
}

func newFixture(t testing.TB, server cluster.ServerName) *fixture {
	t.Helper()
	bootNet := &cluster.Network{Name: "boot", Subnet: netip.MustParsePrefix("10.77.0.0/24"), Gateway: addr("10.77.0.254"),
		DNS: []netip.Addr{addr("10.77.0.253")}, MTU: 9000}
	mpi := &cluster.Network{Name: "mpi", Subnet: netip.MustParsePrefix("10.78.0.0/24")}
	ports := cluster.Ports{NFS: 2049, HTTP: 80, TFTP: 69, API: 7117}
	is1 := &cluster.Server{Name: "is1", Roles: []cluster.Role{cluster.RoleImage}, Ports: ports, DHCP: true,
		Interfaces: []*cluster.Interface{{Network: bootNet, Address: addr("10.77.0.1")}, {Network: mpi, Address: addr("10.78.0.1")}}}
	is2 := &cluster.Server{Name: "is2", Roles: is1.Roles, Ports: cluster.Ports{NFS: 20490, HTTP: 8080, TFTP: 69, API: 7117}, DHCP: true,
		Interfaces: []*cluster.Interface{{Network: bootNet, Address: addr("10.77.0.2")}}}
	compute := &cluster.Image{Name: "compute", Arch: "amd64", Kernel: cluster.Kernel{Append: "console=ttyS0"}}
	node := func(i int, servers ...*cluster.Server) *cluster.Node {
		return &cluster.Node{Name: cluster.NodeName([]string{"n01", "n02"}[i]), Index: i, Image: compute, Servers: servers,
			Interfaces: []*cluster.Interface{
				{Name: "eth0", Network: bootNet, Address: addr([]string{"10.77.0.11", "10.77.0.12"}[i]), MAC: mac(byte(i + 1))},
				{Name: "eth1", Network: mpi, Address: addr([]string{"10.78.0.11", "10.78.0.12"}[i]), MAC: mac(byte(i + 0x81))},
			}}
	}
	f := &fixture{assets: &pair{kernel: []byte("a kernel"), initramfs: []byte("an initramfs")}, now: time.Unix(1e9, 0).UTC()}
	f.cluster = &cluster.Cluster{Name: "test", Domain: "test.example", Networks: []*cluster.Network{bootNet, mpi},
		Servers: []*cluster.Server{is1, is2}, Images: []*cluster.Image{compute}, Nodes: []*cluster.Node{node(0, is1, is2), node(1, is2)}}
	loaders := t.TempDir()
	for _, name := range []string{"undionly.kpxe", "snponly.efi", "secret"} {
		if err := os.WriteFile(filepath.Join(loaders, name), []byte("this is "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "ipxe.efi") // a link out of the directory, as in Debian's package
	if err := os.WriteFile(elsewhere, []byte("this is ipxe.efi"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(loaders, "ipxe.efi")); err != nil {
		t.Fatal(err)
	}
	f.Boot = New(Options{
		Server: server, Cluster: func() *cluster.Cluster { return f.cluster }, Assets: f.assets, Loaders: loaders,
		Tracker: NewTracker(func() time.Time { return f.now }), Log: slog.New(slog.DiscardHandler),
	})
	return f
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(last byte) net.HardwareAddr { return net.HardwareAddr{0x52, 0x54, 0, 0x4d, 0, last} }

// stage returns where a node is, as "stage detail" or "stage! error".
func (f *fixture) stage(node cluster.NodeName) string {
	s, ok := f.Tracker.Get(node)
	switch {
	case !ok:
		return ""
	case s.Error != "":
		return string(s.Stage) + "! " + s.Error
	case s.Detail != "":
		return string(s.Stage) + " " + s.Detail
	}
	return string(s.Stage)
}

var errNoVersion = errors.New("image compute has no version yet: capture it with dim image capture compute")
