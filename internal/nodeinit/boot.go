package nodeinit

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"dim/internal/kmod"
)

// machine is the node as the kernel presents it to process 1. The real one is in the files that end in _linux.go.
type machine interface {
	// Log prints a line on the console and adds it to the kernel's log.
	Log(line string)
	Cmdline() (string, error)
	Release() string
	// Tables returns the tables of the modules in the initramfs, and the names of the modules to load on every node.
	Tables() (kmod.Tables, []string, error)
	LoadModule(path, options string) error
	Modaliases() []string

	// Cards returns the Ethernet cards that are hardware.
	Cards() ([]card, error)
	Rename(from, to string) error
	Up(name string) error
	OpenPacketConn(name string) (packetConn, error)
	// Configure gives a card the lease's address and routes and, unless it is 0, the MTU.
	Configure(name string, l lease, mtu int) error
	// AddIPv6 gives a card an IPv6 address and, unless it is zero, the default route by a router.
	AddIPv6(name string, address netip.Prefix, router netip.Addr) error
	SetHostName(name string) error
	// Post sends a request and waits for the beginning of the answer.
	Post(to netip.AddrPort, request []byte, deadline time.Time) error
	// Call sends a request and returns the whole answer, which must be short.
	Call(to netip.AddrPort, request []byte, deadline time.Time) (string, error)

	// CheckServer returns nil if something listens at an address.
	CheckServer(at netip.AddrPort) error
	Mount(source, data string, readOnly bool) error
	// FindInit returns the first candidate that is a program in the mounted root.
	FindInit(candidates []string) (string, error)
	WriteRunFiles(files []runFile) error
	// StartResident starts the resident process beside init. It calls the server at that address about changes after
	// the given state of the replica.
	StartResident(server netip.AddrPort, state string) error
	// HandOver makes the mounted root the root and executes init there. It returns only if it fails, and may then be
	// called again.
	HandOver(init string, args []string) error
}

// Intervals between two tries of a step. At the longest, a thousand waiting nodes make some 30 requests a second.
const (
	shortestRetry = time.Second
	longestRetry  = 30 * time.Second
)

// carrierTimeout bounds the wait for a link. Then DHCP is tried without: some drivers never report a link.
const carrierTimeout = 15 * time.Second

// boot is one run from the start of /init to the handover.
type boot struct {
	machine

	params  params
	reports reporter
	rand    *rand.Rand
	started time.Time
	index   *kmod.Index
	always  []string
	tried   map[string]bool // modules
	state   string          // of the replica before it was mounted; "": the server does not report switches
}

// run does everything. It does not return on a real machine, whose HandOver replaces the program.
func run(m machine, args []string) {
	b := &boot{machine: m, started: time.Now(), rand: newRand(rand.Uint64(), nil), tried: make(map[string]bool)}
	b.reports.post = m.Post
	b.readParams()
	c := b.findCard()
	name, lease := b.connect(c)
	b.mountRoot()
	b.handOver(name, lease, args)
}

func (b *boot) logf(format string, args ...any) {
	prefix := "dim: "
	if b.params.Node != "" {
		prefix = "dim: " + b.params.Node + ": "
	}
	b.Log(prefix + fmt.Sprintf(format, args...))
}

func (b *boot) debugf(format string, args ...any) {
	if b.params.Debug {
		b.logf(format, args...)
	}
}

// finish logs and reports that a stage is done.
func (b *boot) finish(stage, detail string) {
	b.logf("%s", detail)
	b.reports.add(report{stage: stage, detail: detail, at: time.Now()})
}

// retry calls try until it succeeds. action says what is tried, for the line that says why it failed.
func (b *boot) retry(stage, action string, try func() error) {
	pause := backoff{interval: shortestRetry, longest: longestRetry, rand: b.rand}
	for {
		err := try()
		if err == nil {
			return
		}
		wait := pause.next()
		b.logf("cannot %s: %v; trying again in %.0f s", action, err, max(wait.Seconds(), 1))
		b.reports.add(report{stage: stage, problem: "cannot " + action + ": " + err.Error(), at: time.Now()})
		time.Sleep(wait)
	}
}

func (b *boot) readParams() {
	b.retry(stageInitramfs, "read the kernel command line", func() error {
		line, err := b.Cmdline()
		if err != nil {
			return err
		}
		var problems []string
		b.params, problems = parseParams(line)
		for _, p := range problems {
			b.logf("%s: ignored", p)
		}
		return nil
	})
	b.rand = newRand(rand.Uint64(), b.params.BootMAC)
	b.reports.to = netip.AddrPort{}
	b.finish(stageInitramfs, "dim-init runs on kernel "+b.Release())
}

// findCard loads drivers until there is a card to boot from.
func (b *boot) findCard() []card {
	b.retry(stageInitramfs, "read the list of modules", func() error {
		t, extra, err := b.Tables()
		b.index, b.always = kmod.Parse(t), slices.Concat(always[:], extra)
		return err
	})
	var found []card
	quick := 20 // polls at short intervals: cards of a hypervisor come late, but seldom later than a second
	b.retry(stageLink, "find the boot card", func() error {
		for {
			b.loadDrivers()
			cards, err := b.Cards()
			if err != nil {
				return err
			}
			if found = bootCards(cards, &b.params); len(found) > 0 {
				return nil
			}
			if quick--; quick < 0 {
				return b.noCard(cards)
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
	return found
}

func (b *boot) noCard(cards []card) error {
	if b.params.BootMAC == nil {
		return errors.New(describeCards(cards))
	}
	return fmt.Errorf("no card has the address %s; %s", b.params.BootMAC, describeCards(cards))
}

// loadDrivers loads drivers as long as they find buses with more devices.
func (b *boot) loadDrivers() {
	for {
		order := drivers(b.index, slices.Concat(b.Modaliases(), b.always), &b.params, b.tried)
		if len(order) == 0 {
			return
		}
		for _, name := range order {
			b.load(name)
		}
	}
}

func (b *boot) load(name string) {
	path, ok := b.index.Path(name)
	if !ok {
		return
	}
	if err := b.LoadModule(path, moduleOptions(b.index, &b.params, name)); err != nil {
		b.logf("cannot load the module %s: %v; going on without it", name, err)
		return
	}
	b.debugf("module %s is loaded", name)
}

// mountRoot mounts the replica. It first connects to the server by itself, because the kernel's own mount says little
// of what is wrong and takes minutes to do so.
func (b *boot) mountRoot() {
	p := &b.params
	cacheTime := pollTime
	if p.Push && b.fetchState() {
		cacheTime = pushTime
	}
	b.retry(stageMount, "mount the root from "+p.mountSource(), func() error {
		if err := b.CheckServer(p.Root.Server); err != nil {
			return fmt.Errorf("the NFS server does not answer: %w", err)
		}
		err := b.Mount(p.mountSource(), p.mountData(cacheTime), p.ReadOnly)
		if errors.Is(err, fs.ErrPermission) {
			if why := b.refusal(); why != "" {
				err = errors.New("the server does not let this node mount it: " + why)
			}
		}
		return err
	})
	b.finish(stageMount, "the root is mounted from "+p.mountSource())
}

// refusal asks the server by HTTP why it does not serve the node; "" if it does not tell. The MOUNT protocol has a
// number only.
func (b *boot) refusal() string {
	to := b.params.HTTP
	answer, err := b.Call(to, postRequest(to, ""), time.Now().Add(requestTimeout))
	head, text, _ := strings.Cut(answer, "\r\n\r\n")
	if _, status, _ := strings.Cut(head, " "); err != nil || !strings.HasPrefix(status, "403 ") {
		return ""
	}
	text, _, _ = strings.Cut(text, "\n")
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return -1
		}
		return c
	}, text[:min(len(text), maxDetail)])
}

// fetchState asks the server for the state of the replica, before the root is mounted and anything of it cached. A
// server that does not answer would report no switch either: then fetchState returns false, and the node polls.
func (b *boot) fetchState() bool {
	answer, err := b.Call(b.params.HTTP, pushRequest(b.params.HTTP, "{}"), time.Now().Add(requestTimeout))
	if err == nil {
		b.state, err = parseState(answer)
	}
	if err != nil {
		b.logf("the server does not report switches: %v; the node polls every %d s", err, pollTime)
	}
	return err == nil
}

// requestTimeout bounds a request of the resident process, and of fetchState.
const requestTimeout = 10 * time.Second

// inits are the paths at which distributions have their init: the kernel's own list (init/main.c) and systemd's.
var inits = [...]string{"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/etc/init", "/bin/init"}

func (b *boot) handOver(cardName string, l lease, args []string) {
	candidates := inits[:]
	if b.params.Init != "" {
		candidates = []string{b.params.Init}
	}
	var init string
	b.retry(stageHandover, "start the node's init", func() (err error) {
		init, err = b.FindInit(candidates)
		return err
	})
	if err := b.WriteRunFiles(runFiles(&b.params, cardName, l)); err != nil {
		b.logf("cannot write files in /run: %v; going on without them", err)
	}
	if b.state != "" {
		if err := b.StartResident(b.params.HTTP, b.state); err != nil {
			b.logf("cannot start the resident process: %v; a change may take an hour to show", err)
		}
	}
	took := time.Since(b.started).Seconds()
	b.finish(stageHandover, fmt.Sprintf("starting %s, %.1f s after dim-init began", init, took))
	b.retry(stageHandover, "make the replica the root", func() error { return b.HandOver(init, args) })
}
