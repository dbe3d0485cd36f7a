package nodeinit

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"dim/internal/kmod"
)

// fake is a machine whose steps fail a given number of times.
type fake struct {
	t       *testing.T
	cmdline string
	fail    map[string]int
	said    []string
	posted  []string
	cards   []card
	mounted string
	ran     string
	remains string
}

var errTest = errors.New("not yet")

func (f *fake) try(what string) error {
	if f.fail[what] == 0 {
		return nil
	}
	f.fail[what]--
	return errTest
}

func (f *fake) Say(line string)          { f.said = append(f.said, line) }
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

func (f *fake) OpenWire(string) (wire, error) {
	w := &servers{answers: func(m *dhcpv4.DHCPv4) []delayed {
		if f.try("dhcp") != nil {
			return nil
		}
		return []delayed{{packet: toClient(reply(f.t, m, "10.77.0.1", dhcpv4.OptGeneric(wordsOption, []byte(full))))}}
	}}
	return w, f.try("wire")
}

func (f *fake) Configure(string, Lease, int) error { return f.try("configure") }
func (f *fake) SetHostName(string) error           { return f.try("hostname") }
func (f *fake) Post(_ netip.AddrPort, request []byte, _ time.Time) error {
	if err := f.try("post"); err != nil {
		return err
	}
	_, body, _ := strings.Cut(string(request), "\r\n\r\n")
	f.posted = append(f.posted, strings.Split(strings.TrimSpace(body), "\n")...)
	return nil
}

func (f *fake) Ask(netip.AddrPort, []byte, time.Time) (string, error) {
	return "HTTP/1.0 200 OK\r\nDate: now\r\n\r\nnow compute:17\nend\n", f.try("ask")
}

func (f *fake) Remain(_ netip.AddrPort, seen string) error {
	f.remains = seen
	return f.try("remain")
}

func (f *fake) Reach(netip.AddrPort) error { return f.try("reach") }
func (f *fake) Mount(source, data string, _ bool) error {
	f.mounted = source + " " + data
	return f.try("mount")
}
func (f *fake) FindInit(c []string) (string, error) { return c[0], f.try("find") }
func (f *fake) LeaveNotes([]note) error             { return f.try("notes") }
func (f *fake) HandOver(init string, args []string) error {
	f.ran = init + " " + strings.Join(args, " ")
	return f.try("handover")
}

func newFake(t *testing.T, cmdline string) *fake {
	c := card{name: "eth1", mac: testMAC(), carrier: true}
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
		compare(t, "/sbin/init splash", f.ran)
		compare(t, "eth0", f.cards[0].name)
		compare(t, []string{"initramfs", "link", "address", "mount", "handover"}, stages(t, f.posted))
		if d := time.Since(began); d > 0 {
			t.Errorf("a boot without faults waited %v", d)
		}
		compare(t, 5, len(f.said))
	})
}

func TestEveryStepIsTriedAgainUntilItSucceeds(t *testing.T) {
	for _, step := range []string{
		"cmdline", "tables", "module", "card", "rename", "up", "wire", "dhcp", "configure", "hostname", "post", "reach", "mount", "find",
		"notes", "handover",
	} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, full)
				f.fail[step] = 25
				began := time.Now()
				run(f, nil)
				compare(t, "/sbin/init ", f.ran)
				if d := time.Since(began); d > 25*mostPause*5/4 {
					t.Errorf("it took %v", d)
				}
				for _, line := range f.said {
					if !strings.HasPrefix(line, "dim: ") || strings.Contains(line, "\n") {
						t.Errorf("the console says %q", line)
					}
				}
			})
		})
	}
}

func TestANodeThatIsToldOfSwitchesKeepsWhatItKnows(t *testing.T) {
	for _, tt := range []struct {
		words, fail string
		options     string
		remains     string
	}{
		{"", "", "actimeo=3,", ""},
		{" dim.push", "", "actimeo=3600,", "compute:17"},
		{" dim.push", "ask", "actimeo=3,", ""},
		{" dim.push", "remain", "actimeo=3600,", "compute:17"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, full+tt.words)
			f.fail[tt.fail] = 1
			run(f, nil)
			compare(t, "/sbin/init ", f.ran)
			compare(t, tt.remains, f.remains)
			if !strings.Contains(f.mounted, tt.options) {
				t.Errorf("%+v: mounted %q", tt, f.mounted)
			}
			if said := len(f.said); said > 5 != (tt.fail != "") {
				t.Errorf("%+v: said %q", tt, f.said)
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

func TestACardWithoutALinkAsksAllTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, full)
		f.cards[0].carrier = false
		run(f, nil)
		compare(t, "/sbin/init ", f.ran)
		compare(t, []string{"initramfs", "link failed", "address", "mount", "handover"}, stages(t, f.posted))
	})
}

func TestPausesGrowWithinBoundsAndDifferFromNodeToNode(t *testing.T) {
	take := func(last byte) (all []time.Duration) {
		b := backoff{next: time.Second, most: 30 * time.Second, rand: newRand(0, []byte{0, 0, 0, 0, 0, last})}
		for range 8 {
			all = append(all, b.take())
		}
		return all
	}
	a, b := take(1), take(2)
	nominal := time.Second
	for i := range a {
		if a[i] < nominal*3/4 || a[i] > nominal*5/4 {
			t.Errorf("pause %d is %v, want about %v", i, a[i], nominal)
		}
		nominal = min(2*nominal, 30*time.Second)
	}
	if slices.Equal(a, b) {
		t.Error("two nodes wait in step")
	}
}

func TestReportsStayWithinTheServersBounds(t *testing.T) {
	now := time.Now()
	var many []report
	for range 100 {
		many = append(many, report{stage: stageMount, problem: strings.Repeat("\"\x01\xff", 300), at: now.Add(-time.Second)})
	}
	body := reportBody(many, now)
	if len(body) > maxReport || len(body) == 0 {
		t.Errorf("body of %d bytes", len(body))
	}
	stages(t, strings.Split(strings.TrimSpace(body), "\n"))
}
