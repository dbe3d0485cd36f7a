package admission

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/testkit"
)

// site is a cluster with two nodes on loopback, where any port counts as one of the superuser.
func site() *cluster.Cluster {
	loop := &cluster.Network{Name: "loop", Subnet: netip.MustParsePrefix("127.0.0.0/8"), Insecure: true}
	admin := &cluster.Network{Name: "admin", Subnet: netip.MustParsePrefix("10.99.0.0/24"), Admin: true}
	node := func(name cluster.NodeName, a string) *cluster.Node {
		return &cluster.Node{Name: name, Interfaces: []*cluster.Interface{
			{Name: "eth0", Network: loop, Address: netip.MustParseAddr(a)},
		}}
	}
	return &cluster.Cluster{
		Networks: []*cluster.Network{loop, admin},
		Nodes:    []*cluster.Node{node("n01", "127.0.0.11"), node("n02", "127.0.0.12")},
	}
}

// open is a controller with a listener behind which a goroutine keeps what it accepts.
func open(t *testing.T) (d *Controller, addr string) {
	t.Helper()
	d = New("test", site, slog.New(slog.DiscardHandler))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for behind := d.Listener(ln); ; {
			c, err := behind.Accept()
			if err != nil {
				return
			}
			go func() { // as a service: it reads until the client ends
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return d, ln.Addr().String()
}

func dial(t *testing.T, from, to string) *net.TCPConn {
	t.Helper()
	c, err := dialFrom(t, from, 0, to)
	testkit.Must(t, err)
	return c
}

func dialFrom(t *testing.T, from string, port int, to string) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from), Port: port}}
	c, err := d.DialContext(t.Context(), "tcp", to)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), nil
}

// dialAsSuperuser connects from a port below 1024 that is free.
func dialAsSuperuser(t *testing.T, from, to string) *net.TCPConn {
	t.Helper()
	for port := 1023; port > 700; port-- {
		if c, err := dialFrom(t, from, port, to); err == nil {
			return c
		}
	}
	t.Fatal("no port below 1024 is free")
	return nil
}

func (d *Controller) count(addr string) int {
	return len(d.open.Of(holder{netip.MustParseAddr(addr), true}))
}

// end is a connection without a socket.
type end struct {
	net.Conn
	remote string
}

func (e *end) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(e.remote))
}
func (e *end) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 80} }

func TestStrangersAreNotTaken(t *testing.T) {
	d := New("test", site, slog.New(slog.DiscardHandler))
	for remote, want := range map[string]bool{
		"127.0.0.11:4000": true, "10.99.0.7:4000": true, "10.77.0.1:4000": true, // a node, an admin's, our own end
		"192.0.2.9:700": false, "10.98.0.7:4000": false,
	} {
		c := &end{remote: remote}
		if got := d.admit(c); got != want {
			t.Errorf("%s is admitted: %t", remote, got)
		}
		d.remove(c)
		if len(d.open.Of(holder{netip.MustParseAddrPort(remote).Addr(), remote == "127.0.0.11:4000"})) != 0 {
			t.Errorf("%s is still counted", remote)
		}
	}
	if n := d.Refused(); n != 2 {
		t.Errorf("%d are counted as refused", n)
	}
}

func TestAnAddressHasItsConnectionsAndNoMore(t *testing.T) {
	d, addr := open(t)
	for range 3 * perAddress {
		dial(t, "127.0.0.11", addr)
		if n := d.count("127.0.0.11"); n > perAddress {
			t.Fatalf("%d connections", n)
		}
	}
	mine := dial(t, "127.0.0.12", addr)
	testkit.Eventually(t, "another node is admitted", func() bool { return d.count("127.0.0.12") == 1 })
	mine.Close()
	testkit.Eventually(t, "its end is noticed", func() bool { return d.count("127.0.0.12") == 0 })
}

func TestAConnectionThatNobodyEndsMakesRoom(t *testing.T) {
	d, addr := open(t)
	for range perAddress {
		dial(t, "127.0.0.11", addr)
	}
	testkit.Eventually(t, "they are admitted", func() bool { return d.count("127.0.0.11") == perAddress })
	testkit.Eventually(t, "a new one is admitted in the place of one that is quiet", func() bool {
		c := dial(t, "127.0.0.11", addr)
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		e, ok := err.(net.Error)
		return ok && e.Timeout()
	})
}

func TestAServiceOfHTTPAdmitsToo(t *testing.T) {
	d := New("test", site, slog.New(slog.DiscardHandler))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	s := &http.Server{Handler: http.NotFoundHandler(), ConnState: d.ConnState}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	for range 3 * perAddress {
		dial(t, "127.0.0.11", ln.Addr().String())
	}
	if n := d.count("127.0.0.11"); n > perAddress {
		t.Errorf("%d connections", n)
	}
	testkit.Must(t, s.Close())
	<-done
	testkit.Eventually(t, "all have left", func() bool { return d.count("127.0.0.11") == 0 })
}

func TestAnAddressMakesNoMoreRequestsThanItMay(t *testing.T) {
	d := New("test", site, slog.New(slog.DiscardHandler))
	h := d.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	ask := func(from string) int {
		r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
		r.RemoteAddr = from
		h.ServeHTTP(w, r)
		return w.Code
	}
	began, served := time.Now(), 0
	for range 2 * requestBurst {
		if ask("127.0.0.11:2000") == http.StatusOK {
			served++
		}
	}
	most := requestBurst + 1 + int(time.Since(began)/(time.Second/requestRate))
	if served < requestBurst || served > most {
		t.Errorf("%d requests are served, want %d", served, requestBurst)
	}
	if code := ask("127.0.0.12:2000"); code != http.StatusOK {
		t.Errorf("another node: %d", code)
	}
}

func TestTheLimitGrowsWithTheDescription(t *testing.T) {
	now := &cluster.Cluster{Networks: site().Networks}
	d := New("test", func() *cluster.Cluster { return now }, slog.New(slog.DiscardHandler))
	admitted := 0
	connect := func(host int) {
		if d.admit(&end{remote: fmt.Sprintf("10.99.0.%d:2000", host)}) {
			admitted++
		}
	}
	for host := range spare/perAddress + 20 {
		for range perAddress {
			connect(1 + host)
		}
	}
	if admitted != spare {
		t.Errorf("without nodes %d connections, want %d", admitted, spare)
	}
	now = site()
	for host := range 100 {
		connect(100 + host)
	}
	if want := spare + 2*perNode; admitted != want {
		t.Errorf("with two nodes %d connections, want %d", admitted, want)
	}
}

func TestAMachineThatRunsAnswers(t *testing.T) {
	testkit.NeedRoot(t, "it calls from a privileged port")
	d, addr := open(t)
	loader := dial(t, "127.0.0.11", addr)
	c := dialAsSuperuser(t, "127.0.0.11", addr)
	testkit.Eventually(t, "both are admitted", func() bool { return d.count("127.0.0.11") == 2 })
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.11")}
	controllers := []*Controller{New("none", site, d.log), d}
	if !Answers(t.Context(), controllers, addrs, time.Now()) {
		t.Error("a machine that runs does not answer")
	}
	mute(t, c)
	if Answers(t.Context(), controllers, addrs, time.Now()) {
		t.Error("a machine that is off answers")
	}
	c.Close()
	testkit.Eventually(t, "it has left", func() bool { return d.count("127.0.0.11") == 1 })
	if Answers(t.Context(), controllers, addrs, time.Now()) {
		t.Errorf("the loader's connection from %s answers for the system", loader.LocalAddr())
	}
	if Answers(t.Context(), controllers, []netip.Addr{netip.MustParseAddr("127.0.0.12")}, time.Now()) {
		t.Error("a machine without connections answers")
	}
}

// mute lets the kernel drop all that arrives on a connection, as if its machine were switched off.
func mute(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	testkit.Must(t, err)
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var set error
	testkit.Must(t, raw.Control(func(fd uintptr) {
		set = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: 1, Filter: &drop[0]})
	}))
	testkit.Must(t, set)
}

// A load test has a connection for each simulated node, and takes none of those that nodes may have.
func TestConnectionsOfThisMachinesSuperuserTakeNobodysPlace(t *testing.T) {
	now := &cluster.Cluster{Networks: site().Networks}
	d := New("test", func() *cluster.Cluster { return now }, slog.New(slog.DiscardHandler))
	var own []net.Conn
	for i := range 2 * spare {
		c := &end{remote: fmt.Sprintf("127.83.%d.%d:1000", i/250, 1+i%250)}
		if !d.admit(c) {
			t.Fatalf("connection %d of the superuser is not admitted", i)
		}
		own = append(own, c)
	}
	d.Apart = func(who caller.Caller) bool { return who.Peer.Remote.Addr() == netip.MustParseAddr("10.99.0.2") }
	for i := range 2 * ofLoadTest {
		c := &end{remote: fmt.Sprintf("10.99.0.2:%d", 1+i%1000)}
		if d.admit(c) != (i < ofLoadTest) {
			t.Fatalf("connection %d of a load test from another server: %t", i, i >= ofLoadTest)
		}
		own = append(own, c)
	}
	if !d.admit(&end{remote: "10.99.0.1:2000"}) {
		t.Error("a host of an admin network is not admitted")
	}
	for _, c := range own {
		d.remove(c)
	}
	for _, from := range []string{"127.83.0.1", "10.99.0.2"} {
		if n := len(d.own.Of(holder{netip.MustParseAddr(from), true})); n != 0 {
			t.Errorf("after their end %d connections of %s are counted", n, from)
		}
	}
}
