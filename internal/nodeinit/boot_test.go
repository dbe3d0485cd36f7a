package nodeinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"dim/internal/kmod"
)

// fake is a machine whose steps fail as often as fail says.
type fake struct {
	t       *testing.T
	cmdline string
	fail    map[string]int
	log     []string
	posted  []string
	cards   []card
	mounted string
	init    string
	state   string // with which the resident process was started
	refusal string // the HTTP answer to a node that may not mount its root
}

var errTest = errors.New("not yet")

func (f *fake) try(what string) error {
	if f.fail[what] == 0 {
		return nil
	}
	f.fail[what]--
	return errTest
}

func (f *fake) Log(line string)          { f.log = append(f.log, line) }
func (f *fake) Cmdline() (string, error) { return f.cmdline, f.try("cmdline") }
func (f *fake) Release() string          { return "6.1" }
func (f *fake) Tables() (kmod.Tables, []string, error) {
	return kmod.Tables{Dep: "k/nfs.ko:\nk/nfsv3.ko: k/nfs.ko\n"}, nil, f.try("tables")
}
func (f *fake) LoadModule(string, string) error { return f.try("module") }
func (f *fake) Modaliases() []string            { return nil }

func (f *fake) Cards() ([]card, error) {
	if f.fail["card"] != 0 {
		f.fail["card"]--
		return nil, nil
	}
	return slices.Clone(f.cards), nil
}

func (f *fake) Rename(from, to string) error {
	if err := f.try("rename"); err != nil {
		return err
	}
	for i := range f.cards {
		if f.cards[i].name == from {
			f.cards[i].name = to
		}
	}
	return nil
}

func (f *fake) Up(string) error { return f.try("up") }

func (f *fake) OpenPacketConn(string) (packetConn, error) {
	w := &fakeServers{answers: func(m *dhcpv4.DHCPv4) []delayed {
		if f.try("dhcp") != nil {
			return nil
		}
		words := dhcpv4.OptGeneric(wordsOption, []byte(full))
		return []delayed{{packet: toClient(reply(f.t, m, "10.77.0.1", words))}}
	}}
	return w, f.try("packetconn")
}

func (f *fake) AddIPv6(string, netip.Prefix, netip.Addr) error { return f.try("add IPv6") }
func (f *fake) Configure(string, lease, int) error             { return f.try("configure") }
func (f *fake) SetHostName(string) error                       { return f.try("hostname") }
func (f *fake) Post(_ netip.AddrPort, request []byte, _ time.Time) error {
	if err := f.try("post"); err != nil {
		return err
	}
	_, body, _ := strings.Cut(string(request), "\r\n\r\n")
	f.posted = append(f.posted, strings.Split(strings.TrimSpace(body), "\n")...)
	return nil
}

func (f *fake) Call(_ netip.AddrPort, request []byte, _ time.Time) (string, error) {
	if strings.HasPrefix(string(request), "POST /boot/stage ") {
		return f.refusal, f.try("call")
	}
	return "HTTP/1.0 200 OK\r\nDate: now\r\n\r\nnow compute:17\nend\n", f.try("call")
}

func (f *fake) StartResident(_ netip.AddrPort, state string) error {
	f.state = state
	return f.try("resident")
}

func (f *fake) CheckServer(netip.AddrPort) error { return f.try("server") }
func (f *fake) Mount(source, data string, _ bool) error {
	f.mounted = source + " " + data
	if err := f.try("mount"); err != nil && f.refusal != "" {
		return fmt.Errorf("the server does not let this node mount it (%w)", fs.ErrPermission)
	} else if err != nil {
		return err
	}
	return nil
}
func (f *fake) FindInit(c []string) (string, error) { return c[0], f.try("find") }
func (f *fake) WriteRunFiles([]runFile) error       { return f.try("files") }
func (f *fake) HandOver(init string, args []string) error {
	f.init = init + " " + strings.Join(args, " ")
	return f.try("handover")
}

func newFake(t *testing.T, cmdline string) *fake {
	c := card{name: "eth1", mac: testMAC(), carrier: true, speed: 1000}
	return &fake{t: t, cmdline: cmdline, cards: []card{c}, fail: make(map[string]int)}
}

func stages(t *testing.T, posted []string) []string {
	t.Helper()
	var got []string
	for _, line := range posted {
		var r struct {
			Stage, Detail, Error string
			Ago                  float64
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("report %q: %v", line, err)
		}
		if r.Error != "" {
			r.Stage += " failed"
		}
		got = append(got, r.Stage)
	}
	return got
}

func TestABootReachesTheNodesInitAndReportsItsStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, full)
		began := time.Now()
		run(f, []string{"splash"})
		compare(t, "/sbin/init splash", f.init)
		compare(t, "eth0", f.cards[0].name)
		compare(t, []string{"initramfs", "link", "address", "mount", "handover"}, stages(t, f.posted))
		if d := time.Since(began); d > 0 {
			t.Errorf("a boot without faults waited %v", d)
		}
		compare(t, 5, len(f.log))
	})
}

func TestEveryStepIsTriedAgainUntilItSucceeds(t *testing.T) {
	for _, step := range []string{
		"cmdline", "tables", "module", "card", "rename", "up", "packetconn", "dhcp", "configure", "hostname", "post",
		"server", "mount", "find", "files", "handover",
	} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, full)
				f.fail[step] = 25
				began := time.Now()
				run(f, nil)
				compare(t, "/sbin/init ", f.init)
				if d := time.Since(began); d > 25*longestRetry*5/4 {
					t.Errorf("it took %v", d)
				}
				for _, line := range f.log {
					if !strings.HasPrefix(line, "dim: ") || strings.Contains(line, "\n") {
						t.Errorf("console line %q", line)
					}
				}
			})
		})
	}
}

func TestANodeThatLearnsOfSwitchesCachesLonger(t *testing.T) {
	for _, tt := range []struct {
		words, fail string
		options     string
		state       string
	}{
		{"", "", "actimeo=3,", ""},
		{" dim.push", "", "actimeo=3600,", "compute:17"},
		{" dim.push", "call", "actimeo=3,", ""},
		{" dim.push", "resident", "actimeo=3600,", "compute:17"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, full+tt.words)
			f.fail[tt.fail] = 1
			run(f, nil)
			compare(t, "/sbin/init ", f.init)
			compare(t, tt.state, f.state)
			if !strings.Contains(f.mounted, tt.options) {
				t.Errorf("%+v: mounted %q", tt, f.mounted)
			}
			if lines := len(f.log); lines > 5 != (tt.fail != "") {
				t.Errorf("%+v: log %q", tt, f.log)
			}
		})
	}
}

func TestANodeShowsWhyItsServerDoesNotServeIt(t *testing.T) {
	const why = "is2 serves n01: this server does not, because it does not have the node's layer"
	for _, tt := range []struct{ answer, want string }{
		{"HTTP/1.0 403 Forbidden\r\nDate: now\r\n\r\n" + why + "\nmore",
			"does not let this node mount it: " + why + ";"},
		{"HTTP/1.0 403 Forbidden\r\n\r\n\x1b[2Jbad", "does not let this node mount it: [2Jbad;"},
		{"HTTP/1.0 204 No Content\r\n\r\n", "does not let this node mount it (permission denied);"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, full)
			f.fail["mount"], f.refusal = 1, tt.answer
			run(f, nil)
			compare(t, "/sbin/init ", f.init)
			if log := strings.Join(f.log, "\n"); !strings.Contains(log, tt.want) {
				t.Errorf("no %q on the console:\n%s", tt.want, log)
			}
		})
	}
}

func TestWithoutACommandLineTheRootIsWhereDHCPSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, "console=ttyS0")
		run(f, nil)
		if !strings.HasPrefix(f.mounted, "10.77.0.1:/nodes/n01 vers=3,") {
			t.Errorf("mounted %q", f.mounted)
		}
		compare(t, "eth0", f.cards[0].name)
	})
}

func TestDHCPIsTriedWithoutALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, full)
		f.cards[0].carrier = false
		run(f, nil)
		compare(t, "/sbin/init ", f.init)
		compare(t, []string{"initramfs", "link failed", "address", "mount", "handover"}, stages(t, f.posted))
	})
}

func TestIntervalsGrowWithinBoundsAndDifferFromNodeToNode(t *testing.T) {
	take := func(last byte) (all []time.Duration) {
		b := backoff{interval: time.Second, longest: 30 * time.Second, rand: newRand(0, []byte{0, 0, 0, 0, 0, last})}
		for range 8 {
			all = append(all, b.next())
		}
		return all
	}
	a, b := take(1), take(2)
	nominal := time.Second
	for i := range a {
		if a[i] < nominal*3/4 || a[i] > nominal*5/4 {
			t.Errorf("interval %d is %v, want about %v", i, a[i], nominal)
		}
		nominal = min(2*nominal, 30*time.Second)
	}
	if slices.Equal(a, b) {
		t.Error("two nodes have the same intervals")
	}
}

func TestReportsStayWithinTheServersBounds(t *testing.T) {
	now := time.Now()
	var many []report
	for range 100 {
		problem := strings.Repeat("\"\x01\xff", 300)
		many = append(many, report{stage: stageMount, problem: problem, at: now.Add(-time.Second)})
	}
	body := reportBody(many, now)
	if len(body) > maxReport || len(body) == 0 {
		t.Errorf("body of %d bytes", len(body))
	}
	stages(t, strings.Split(strings.TrimSpace(body), "\n"))
}
