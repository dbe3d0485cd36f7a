package caller_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"dim/internal/caller"
	"dim/internal/cluster"
)

// site is a cluster with one network of each kind, a node on all of them, and a node and a server on loopback
// addresses.
func site() *cluster.Cluster {
	boot := &cluster.Network{Name: "boot", Subnet: netip.MustParsePrefix("10.77.0.0/24")}
	admin := &cluster.Network{Name: "admin", Subnet: netip.MustParsePrefix("10.99.0.0/24"), Admin: true}
	open := &cluster.Network{Name: "open", Subnet: netip.MustParsePrefix("10.66.0.0/24"), Insecure: true}
	six := &cluster.Network{Name: "six", Subnet: netip.MustParsePrefix("fd00:77::/64"), Admin: true}
	loop := &cluster.Network{Name: "loop", Subnet: netip.MustParsePrefix("127.0.0.0/8")}
	card := func(n *cluster.Network, a string) *cluster.Interface {
		return &cluster.Interface{Name: n.Name, Network: n, Address: netip.MustParseAddr(a)}
	}
	return &cluster.Cluster{
		Networks: []*cluster.Network{boot, admin, open, six, loop},
		Servers: []*cluster.Server{
			{Name: "head", Interfaces: []*cluster.Interface{
				card(boot, "10.77.0.1"), card(admin, "10.99.0.1"), {Name: "no address"},
			}},
			{Name: "here", Interfaces: []*cluster.Interface{card(loop, "127.0.0.2")}},
		},
		Nodes: []*cluster.Node{
			{Name: "n01", Interfaces: []*cluster.Interface{
				card(boot, "10.77.0.11"), card(admin, "10.99.0.11"), card(open, "10.66.0.11"),
			}},
			{Name: "n02", Interfaces: []*cluster.Interface{card(loop, "127.0.0.11"), {Name: "no address"}}},
		},
	}
}

// facts are those of a caller that the table names: "node n01 boot", "server head", "local", "admin", "superuser",
// "root".
func facts(c caller.Caller) string {
	var list []string
	if c.Node != nil {
		list = append(list, "node", string(c.Node.Name), c.Interface.Name)
	}
	if c.Server != nil {
		list = append(list, "server", string(c.Server.Name))
	}
	for _, f := range []struct {
		name string
		is   bool
	}{{"local", c.Local}, {"admin", c.Admin}, {"superuser", c.Superuser}, {"root", c.Root}} {
		if f.is {
			list = append(list, f.name)
		}
	}
	return strings.Join(list, " ")
}

func TestResolve(t *testing.T) {
	tests := []struct {
		name, remote, local string
		want                string
		nobody              bool
	}{
		{name: "a node", remote: "10.77.0.11:800", want: "node n01 boot superuser"},
		{name: "a user of a node", remote: "10.77.0.11:1024", want: "node n01 boot"},
		{name: "the highest privileged port", remote: "10.77.0.11:1023", want: "node n01 boot superuser"},
		{name: "a node in an admin network", remote: "10.99.0.11:800", want: "node n01 admin admin superuser"},
		{name: "a node in an insecure network", remote: "10.66.0.11:40000", want: "node n01 open superuser"},
		{name: "a node by an IPv4-mapped address", remote: "[::ffff:10.77.0.11]:800", want: "node n01 boot superuser"},
		{name: "a node with a loopback address", remote: "127.0.0.11:800", want: "node n02 loop local superuser root"},
		{name: "a user of it", remote: "127.0.0.11:40000", want: "node n02 loop local"},

		{name: "root of this machine", remote: "127.0.0.1:800", want: "local superuser root"},
		{name: "root of this machine by IPv6", remote: "[::1]:800", want: "local superuser root"},
		{name: "a user of this machine", remote: "127.0.0.1:40000", want: "local"},
		{name: "this machine by a server's loopback address", remote: "127.0.0.2:40000", want: "local"},
		{name: "the address of our own end", remote: "10.77.0.1:800", local: "10.77.0.1:80", want: "local superuser"},
		{name: "our own end, IPv4-mapped", remote: "10.5.0.1:40000", local: "[::ffff:10.5.0.1]:80", want: "local"},
		{name: "our end in an admin network", remote: "10.99.0.1:40000", local: "10.99.0.1:80", want: "local admin"},

		{name: "another server", remote: "10.77.0.1:40000", local: "10.77.0.2:80", want: "server head"},
		{name: "another server in an admin network", remote: "10.99.0.1:800", want: "server head admin superuser"},

		{name: "a host of an admin network", remote: "10.99.0.200:40000", want: "admin"},
		{name: "its superuser", remote: "10.99.0.200:800", want: "admin superuser"},
		{name: "a host of an IPv6 admin network", remote: "[fd00:77::5]:40000", want: "admin"},

		{name: "a host of the boot network", remote: "10.77.0.200:800", want: "superuser", nobody: true},
		{name: "a host of an insecure network", remote: "10.66.0.200:40000", want: "superuser", nobody: true},
		{name: "a host of no network", remote: "192.0.2.7:40000", nobody: true},
		{name: "a connection without an address", nobody: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p caller.Peer
			if tt.remote != "" {
				p.Remote = netip.MustParseAddrPort(tt.remote)
			}
			if tt.local != "" {
				p.Local = netip.MustParseAddrPort(tt.local)
			}
			who, err := caller.Resolve(site(), p)
			if got := facts(who); got != tt.want || (err != nil) != tt.nobody {
				t.Errorf("got %q, error %v; want %q, nobody %t", got, err, tt.want, tt.nobody)
			}
			if err != nil && p.Remote.IsValid() && !strings.Contains(err.Error(), p.Remote.Addr().String()) {
				t.Errorf("the error does not name the address: %v", err)
			}
		})
	}
}

func TestInsecureLoopbackDoesNotMakeRoot(t *testing.T) {
	c := site()
	c.Networks[4].Insecure = true
	who, err := caller.Resolve(c, caller.Peer{Remote: netip.MustParseAddrPort("127.0.0.1:40000")})
	if got := facts(who); got != "local superuser" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
}

func TestOfRequest(t *testing.T) {
	own := &net.TCPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 80}
	tests := []struct {
		name, remote string
		local        net.Addr
		want         caller.Peer
		bad          bool
	}{
		{name: "both ends", remote: "10.77.0.11:800", local: own,
			want: caller.Peer{Remote: netip.MustParseAddrPort("10.77.0.11:800"), Local: own.AddrPort()}},
		{name: "our end is not known", remote: "10.77.0.11:800",
			want: caller.Peer{Remote: netip.MustParseAddrPort("10.77.0.11:800")}},
		{name: "our end is no IP address", remote: "10.77.0.11:800", local: &net.UnixAddr{Name: "/run/s"},
			want: caller.Peer{Remote: netip.MustParseAddrPort("10.77.0.11:800")}},
		{name: "no address", remote: "@", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.remote
			if tt.local != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, tt.local))
			}
			got, err := caller.OfRequest(r)
			if got.Remote != tt.want.Remote || got.Local.Port() != tt.want.Local.Port() ||
				got.Local.Addr().Unmap() != tt.want.Local.Addr().Unmap() || (err != nil) != tt.bad {
				t.Errorf("got %+v, error %v; want %+v", got, err, tt.want)
			}
		})
	}
}
