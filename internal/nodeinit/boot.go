package nodeinit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"dim/internal/kmod"
)

// machine is the node as the kernel gives it to process 1. The real one is in the files that end in _linux.go.
type machine interface {
	// Say shows one line on the console and leaves it in the kernel's log.
	Say(line string)
	Cmdline() (string, error)
	Release() string
	// Tables returns the tables of the modules in the initramfs, and the names of those to load on every node.
	Tables() (kmod.Tables, []string, error)
	LoadModule(path, options string) error
	Modaliases() []string

	// Cards returns the Ethernet cards that are hardware.
	Cards() ([]card, error)
	Rename(from, to string) error
	Up(name string) error
	OpenWire(name string) (wire, error)
	// Configure gives the card the lease's address, routes and, unless it is 0, the MTU.
	Configure(name string, l Lease, mtu int) error
	SetHostName(name string) error
	Post(to netip.AddrPort, request []byte, deadline time.Time) error
	// Ask sends a request and returns the whole answer, which is short.
	Ask(at netip.AddrPort, request []byte, deadline time.Time) (string, error)

	// Reach returns nil when something listens there.
	Reach(at netip.AddrPort) error
	Mount(source, data string, readOnly bool) error
	// FindInit returns which of the candidates is a program in the mounted root.
	FindInit(candidates []string) (string, error)
	// LeaveNotes writes files below /run.
	LeaveNotes(notes []note) error
	// Remain starts the process that stays (see Stay) beside init. It hears from the server at that address what has changed
	// since what was seen.
	Remain(at netip.AddrPort, seen string) error
	// HandOver makes the mounted root the root and runs init there. It returns only to tell why it could not, and may
	// be called again.
	HandOver(init string, args []string) error
}

// Longest intervals between two tries of a step. A thousand nodes that wait for a server ask it 30 times a second.
const (
	firstPause = time.Second
	mostPause  = 30 * time.Second
)

// carrierPatience bounds the wait for a link before DHCP is tried without: some drivers never report one.
const carrierPatience = 15 * time.Second

// boot is one run from the start of /init to the handover.
type boot struct {
	machine

	params  Params
	reports reporter
	rand    *rand.Rand
	started time.Time
	index   *kmod.Index
	always  []string
	tried   map[string]bool // modules
	seen    string          // up to where the root's state is known, when the server tells of switches
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

func (b *boot) say(format string, args ...any) {
	who := "dim: "
	if b.params.Node != "" {
		who = "dim: " + b.params.Node + ": "
	}
	b.Say(who + fmt.Sprintf(format, args...))
}

func (b *boot) debug(format string, args ...any) {
	if b.params.Debug {
		b.say(format, args...)
	}
}

// reached says and reports that a stage has been reached.
func (b *boot) reached(stage, detail string) {
	b.say("%s", detail)
	b.reports.add(report{stage: stage, detail: detail, at: time.Now()})
}

// until tries a step until it succeeds. do says what is tried, for the line that tells why it failed.
func (b *boot) until(stage, do string, try func() error) {
	pause := backoff{next: firstPause, most: mostPause, rand: b.rand}
	for {
		err := try()
		if err == nil {
			return
		}
		wait := pause.take()
		b.say("cannot %s: %v; trying again in %.0f s", do, err, max(wait.Seconds(), 1))
		b.reports.add(report{stage: stage, problem: "cannot " + do + ": " + err.Error(), at: time.Now()})
		time.Sleep(wait)
	}
}

func (b *boot) readParams() {
	b.until(stageInitramfs, "read the kernel command line", func() error {
		line, err := b.Cmdline()
		if err != nil {
			return err
		}
		var problems []string
		b.params, problems = ParseParams(line)
		for _, p := range problems {
			b.say("%s: left out", p)
		}
		return nil
	})
	b.rand = newRand(rand.Uint64(), b.params.BootMAC)
	b.reports.to = netip.AddrPort{}
	b.reached(stageInitramfs, "dim-init runs on kernel "+b.Release())
}

// findCard loads drivers until there is a card to boot from.
func (b *boot) findCard() []card {
	b.until(stageInitramfs, "read the list of modules", func() error {
		t, extra, err := b.Tables()
		b.index, b.always = kmod.Parse(t), slices.Concat(always[:], extra)
		return err
	})
	var found []card
	quick := 20 // looks in short intervals: cards of a hypervisor come late, but seldom later than a second
	b.until(stageLink, "find the boot card", func() error {
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
		return errors.New(describe(cards))
	}
	return fmt.Errorf("no card has the address %s; %s", b.params.BootMAC, describe(cards))
}

// loadDrivers goes on while drivers bring forth buses with more devices.
func (b *boot) loadDrivers() {
	for {
		order := drivers(b.index, b.Modaliases(), b.always, &b.params, b.tried)
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
		b.say("cannot load the module %s: %v; going on without it", name, err)
		return
	}
	b.debug("module %s is loaded", name)
}

// mountRoot mounts the replica. The server is first asked for a connection, since the kernel's own mount tells little
// of what is wrong and takes minutes to say so.
func (b *boot) mountRoot() {
	p := &b.params
	cacheTime := pollTime
	if p.Push && b.hears() {
		cacheTime = pushTime
	}
	b.until(stageMount, "mount the root from "+p.mountSource(), func() error {
		if err := b.Reach(p.Root.Server); err != nil {
			return fmt.Errorf("the NFS server does not answer: %w", err)
		}
		return b.Mount(p.mountSource(), p.mountData(cacheTime), p.ReadOnly)
	})
	b.reached(stageMount, "the root is mounted from "+p.mountSource())
}

// hears asks the server where the node's replica stands, before the root is mounted and anything of it known. When it does not
// answer that, it would tell nothing later either, and the node asks by itself.
func (b *boot) hears() bool {
	answer, err := b.Ask(b.params.HTTP, hearRequest(b.params.HTTP, "{}"), time.Now().Add(askPatience))
	if err == nil {
		b.seen, err = parseStart(answer)
	}
	if err != nil {
		b.say("the server does not tell of switches: %v; the node asks every %d s", err, pollTime)
	}
	return err == nil
}

// askPatience bounds the wait for that answer: the mount would be next, of the same server.
const askPatience = 10 * time.Second

// inits are where distributions have their init; the kernel's own list (init/main.c) with systemd's place.
var inits = [...]string{"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/etc/init", "/bin/init"}

func (b *boot) handOver(cardName string, lease Lease, args []string) {
	candidates := inits[:]
	if b.params.Init != "" {
		candidates = []string{b.params.Init}
	}
	var init string
	b.until(stageHandover, "start the node's init", func() (err error) {
		init, err = b.FindInit(candidates)
		return err
	})
	if err := b.LeaveNotes(notes(&b.params, cardName, lease)); err != nil {
		b.say("cannot leave notes in /run: %v; going on without them", err)
	}
	if b.seen != "" {
		if err := b.Remain(b.params.HTTP, b.seen); err != nil {
			b.say("cannot start the process that hears of switches: %v; a change may take an hour to show", err)
		}
	}
	b.reached(stageHandover, fmt.Sprintf("starting %s, %.1f s after dim-init began", init, time.Since(b.started).Seconds()))
	b.until(stageHandover, "make the replica the root", func() error { return b.HandOver(init, args) })
}
