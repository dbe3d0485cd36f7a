package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"dim/internal/testkit"
)

func TestNetIsANamespaceOfItsOwn(t *testing.T) {
	testkit.NeedRoot(t, "it makes a network namespace")
	n, err := New(fmt.Sprintf("dim-netns-%d", os.Getpid()), netip.MustParsePrefix("10.99.0.1/24"))
	if err != nil {
		t.Skip("network namespaces are not supported here: ", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := n.Tap("tap0"); err != nil {
		t.Fatal(err)
	}
	ln, err := n.Listen("tcp", "10.99.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := n.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestACableCanBeCutAndSlowed(t *testing.T) {
	testkit.NeedRoot(t, "it makes network namespaces")
	n, err := New(fmt.Sprintf("dim-hosts-%d", os.Getpid()))
	if err != nil {
		t.Skip("network namespaces are not supported here: ", err)
	}
	t.Cleanup(func() { testkit.Must(t, n.Close()) })
	var hosts []*Host
	for i, name := range []string{"a", "b"} {
		addr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(1 + i)}), 24)
		h := testkit.Value(n.NewHost(name, addr))(t)
		t.Cleanup(func() { testkit.Must(t, h.Close()) })
		hosts = append(hosts, h)
	}
	a, b := hosts[0], hosts[1]
	to := testkit.Value(b.ListenPacket("udp", "10.99.0.2:7000"))(t)
	defer to.Close()
	var from net.Conn
	testkit.Must(t, a.Do(func() (err error) { from, err = net.Dial("udp", "10.99.0.2:7000"); return err }))
	defer from.Close()

	testkit.Eventually(t, "a packet arrives", func() bool { return arrives(from, to, 1000) })
	for _, d := range []Direction{FromHost, ToHost} {
		h := map[Direction]*Host{FromHost: a, ToHost: b}[d]
		testkit.Must(t, h.Cut(d))
		for range 3 {
			if arrives(from, to, 1000) {
				t.Errorf("direction %d: a packet passes a cable that is cut", d)
			}
		}
		testkit.Must(t, h.Mend())
		testkit.Eventually(t, "a packet arrives again", func() bool { return arrives(from, to, 1000) })
	}
	testkit.Must(t, a.Slow(FromHost, "10mbit"))
	testkit.Eventually(t, "a packet passes the slow cable", func() bool { return arrives(from, to, 1000) })
}

// A server that has just been stopped is followed by another one with the name of its host.
func TestTheNameOfAHostIsFreeWhenItIsClosed(t *testing.T) {
	testkit.NeedRoot(t, "it makes network namespaces")
	n, err := New(fmt.Sprintf("dim-names-%d", os.Getpid()))
	if err != nil {
		t.Skip("network namespaces are not supported here: ", err)
	}
	t.Cleanup(func() { testkit.Must(t, n.Close()) })
	for range 10 {
		h := testkit.Value(n.NewHost("a"))(t)
		// A socket keeps the namespace and its card beyond Close.
		conn := testkit.Value(h.ListenPacket("udp", ":7000"))(t)
		testkit.Must(t, h.Close())
		defer conn.Close()
	}
}

// arrives sends a packet and reports whether it is received.
func arrives(from net.Conn, to net.PacketConn, size int) bool {
	_, _ = from.Write(make([]byte, size))
	_ = to.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, _, err := to.ReadFrom(make([]byte, 2*size))
	return err == nil
}
