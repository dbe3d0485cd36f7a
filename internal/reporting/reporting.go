// Package reporting tells heads what this server holds and what its nodes show: at intervals, and when something has
// changed. It tells every head, so that each answers for all servers.
//
// A head gets a whole report first, and then those that name the one before and have only the nodes that have changed
// since. A head that has missed one gets a whole one again.
//
// # What it must not know
//
// What heads do with a report.
package reporting

import (
	"bytes"
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/diskmark"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/follow/stream"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/periodic"
	"dim/internal/pki"
	"dim/internal/problems"
	"dim/internal/store"
)

const (
	// interval is the interval between reports while nothing changes.
	interval = fleet.SilentAfter / 3
	// checkInterval is the interval between checks whether something has changed that nobody told of.
	checkInterval = time.Second
	// problemInterval is the interval between searches for what is wrong with this server, which read the disk.
	problemInterval = fleet.SilentAfter
	// sendTimeout bounds the time that a head takes for a report.
	sendTimeout = 10 * time.Second
	// firstRetry is the pause after a report that a head has not taken. It doubles with each, up to interval.
	firstRetry = 250 * time.Millisecond
)

// Roots knows what the nodes of this server show. serving.Server implements it.
type Roots interface {
	// Shows returns the version that a node's root shows; ok is false when the node has none here.
	Shows(cluster.NodeName) (v image.Version, ok bool)
	// Left returns why a node stays with what it shows because of its packages; "" if it does not.
	Left(cluster.NodeName) string
	// Renaming reports whether layers of this server still have former names of nodes.
	Renaming() bool
}

// Options of a Reporter. All are needed.
type Options struct {
	Server    cluster.ServerName // this server
	Program   string             // its version
	Started   time.Time
	Follow    *follow.Follower
	Store     *store.Store
	Liveness  *liveness.Tracker
	Roots     Roots
	Residents *Residents
	Arriving  func() []fleet.Version // versions that the store gets
	Problems  *problems.List
	Fleet     *fleet.Fleet         // where this server's own reports are kept
	Heads     func() []stream.Head // the other heads
	Disk      *diskmark.Disk
	Log       *slog.Logger
}

// Reporter reports.
type Reporter struct {
	Options
	start string // Report.Start

	wrong atomic.Pointer[[]fleet.Problem] // what is wrong with this server
	stale atomic.Bool                     // the store may have other versions than held
	wake  chan struct{}                   // capacity 1: something has changed
	held  []fleet.Version                 // used by Run alone

	mu       sync.Mutex
	heads    map[cluster.ServerName]*recipient
	refusals map[cluster.ServerName]refusal // of heads that refuse the reports
}

// recipient is what is known of a head.
type recipient struct {
	sending bool          // it takes a report now
	missed  bool          // it has not got the last one
	pause   time.Duration // the pause that the last failure was followed by; 0: the last report was taken
	retry   time.Time     // when what it missed is sent
	took    *fleet.Report // its last one; nil: none, or that is not known
}

// refusal is why a head refuses the reports.
type refusal struct {
	*refusedError
	at time.Time
}

// New returns a Reporter.
func New(o Options) *Reporter {
	r := &Reporter{
		Options: o, start: cryptorand.Text(), wake: make(chan struct{}, 1), heads: map[cluster.ServerName]*recipient{},
		refusals: map[cluster.ServerName]refusal{},
	}
	r.stale.Store(true)
	r.wrong.Store(&[]fleet.Problem{})
	return r
}

// Adopted drops what servers reported that are no longer declared, and lets Run report what has changed here.
// follow.Follower calls it, after those that change something.
func (r *Reporter) Adopted(_ context.Context, now *follow.Declared) {
	r.Fleet.Keep(func(s cluster.ServerName) bool {
		_, ok := now.Cluster.Server(s)
		return ok
	})
	r.report()
}

// Arrived lets Run report that the store has another version.
func (r *Reporter) Arrived() {
	r.stale.Store(true)
	r.report()
}

func (r *Reporter) report() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	var senders sync.WaitGroup
	defer senders.Wait()
	senders.Go(func() { r.watchProblems(ctx) })
	tick := time.NewTimer(periodic.Next(checkInterval))
	defer tick.Stop()
	var last *fleet.Report
	for {
		heads := r.Heads()
		if old := last == nil || time.Since(last.Sent) >= interval; old || len(heads) > 0 {
			next := r.gather(old)
			if old || !last.Same(next) || r.missedBy(heads) {
				last = next
				r.send(ctx, &senders, heads, next)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			tick.Reset(periodic.Next(checkInterval))
		case <-r.wake:
		}
	}
}

// send keeps a report and sends it to heads.
func (r *Reporter) send(ctx context.Context, senders *sync.WaitGroup, heads []stream.Head, report *fleet.Report) {
	r.Fleet.Put(r.Server, report)
	for _, h := range heads {
		if before, free := r.begin(h.Name); free {
			senders.Go(func() {
				err := r.deliver(ctx, h, report, before)
				r.end(h.Name, report, err)
				if r.Follow.IsHead() {
					r.noteEnded(ctx, h.Name, err)
				}
			})
		}
	}
}

// watchProblems finds out at intervals what is wrong with this server, until ctx ends. It takes a while at times.
func (r *Reporter) watchProblems(ctx context.Context) {
	look := func(ctx context.Context) {
		if len(r.Heads()) == 0 {
			return // nobody asks for it
		}
		list := []fleet.Problem{}
		for _, p := range r.Problems.Own(ctx) {
			ofOther := p.About.Kind == problems.KindServer && p.About.Name != string(r.Server)
			if ofOther || p.About.Kind == problems.KindNode || p.About.Kind == problems.KindMachine {
				continue
			}
			list = append(list, fleet.Problem{About: p.About.String(), Text: p.Text, Hint: p.Hint, Since: p.Since})
		}
		r.wrong.Store(&list)
	}
	look(ctx)
	_ = periodic.Run(ctx, problemInterval, look)
}

// missedBy reports whether one of some heads has not got the last report and is to get it now: it was busy with an
// earlier one, or it has failed to take it.
func (r *Reporter) missedBy(heads []stream.Head) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(heads, func(h stream.Head) bool {
		to := r.heads[h.Name]
		return to != nil && to.missed && !to.sending && !time.Now().Before(to.retry)
	})
}

// begin returns whether a head can be sent a report now, and the one that it took last.
func (r *Reporter) begin(head cluster.ServerName) (before *fleet.Report, free bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := r.heads[head]
	if to == nil {
		to = new(recipient)
		r.heads[head] = to
	}
	free = !to.sending
	to.sending, to.missed = true, !free
	return to.took, free
}

// end notes that a head has taken a report, or why it has not. What it missed is sent with the next one: at once if it
// was busy, and after a pause if it has failed.
func (r *Reporter) end(head cluster.ServerName, report *fleet.Report, err error) {
	r.mu.Lock()
	to := r.heads[head]
	to.sending, to.took = false, report
	if err == nil {
		to.pause, to.retry = 0, time.Time{}
		delete(r.refusals, head)
	} else {
		to.noteFailure(err)
	}
	if e, ok := errors.AsType[*refusedError](err); ok {
		r.refusals[head] = refusal{e, time.Now()}
	}
	again, wait := to.missed, time.Until(to.retry)
	r.mu.Unlock()
	if again {
		time.AfterFunc(wait, r.report)
	}
	if err != nil {
		r.Log.Debug("head has not taken the report", "server", string(head), "error", err)
	}
}

// noteFailure notes that the head has not taken a report. It is called with Reporter.mu held. A head that refuses this
// server gets no report before the next interval.
func (to *recipient) noteFailure(err error) {
	to.missed, to.took = true, nil
	to.pause = min(max(firstRetry, 2*to.pause), interval)
	_, refused := errors.AsType[*refusedError](err)
	if _, ended := errors.AsType[*pki.EndedError](err); refused || ended {
		to.pause = interval
	}
	// All servers try again after a head was started.
	to.retry = time.Now().Add(to.pause/2 + rand.N(to.pause/2))
}

// noteEnded notes whether a head has ended the identity of this one. A server that is no head learns that by the state
// that it follows.
func (r *Reporter) noteEnded(ctx context.Context, head cluster.ServerName, err error) {
	ended, ok := errors.AsType[*pki.EndedError](err)
	switch {
	case err == nil:
		r.Follow.NoteAccepted(head)
	case ok:
		err := r.Follow.NoteSuperseded(ctx, coord.Revocation{Server: string(head), Time: ended.Time})
		if err != nil {
			r.Log.Debug("other heads are not told that the identity of this one has ended", "error", err)
		}
	}
}

// refusedError is a report that was refused, because another machine reports as this server.
type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }

// Refused is a problems.Source: heads refuse the reports.
func (r *Reporter) Refused(context.Context) (list []problems.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, head := range slices.Sorted(maps.Keys(r.refusals)) {
		e := r.refusals[head]
		if !fleet.Fresh(e.at) {
			continue // the head does not answer any more, or the other machine has ended
		}
		return append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindServer, Name: string(r.Server)},
			Text:  fmt.Sprintf("head %s refuses its reports: %s", head, e.text),
			Hint: "switch off the machine that is a copy; if it is to be a server of its own: on a head " +
				"dim token --for NAME, then on the copy the command that it prints, with --replace",
		})
	}
	return list
}

// errBase is the error of post if the head has another report than the one that this one is based on.
var errBase = errors.New("it does not know the report that this one is based on")

// deliver sends a report to a head that took another one before: what has changed since, or all.
func (r *Reporter) deliver(ctx context.Context, h stream.Head, report, before *fleet.Report) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if changes := since(before, report); changes != nil {
		if err := r.post(ctx, h, fleet.ChangesPath, changes); !errors.Is(err, errBase) {
			return err
		}
	}
	return r.post(ctx, h, fleet.Path, report)
}

// since returns a report with the nodes that have changed since another one; nil if it cannot be based on that.
func since(before, report *fleet.Report) *fleet.Report {
	if before == nil || len(before.Nodes) != len(report.Nodes) {
		return nil
	}
	changes := *report
	changes.Base, changes.Nodes = before.Sent, nil
	for i, n := range report.Nodes {
		switch old := before.Nodes[i]; {
		case old.Name != n.Name:
			return nil
		case old != n:
			changes.Nodes = append(changes.Nodes, n)
		}
	}
	return &changes
}

// post posts a report to a head.
func (r *Reporter) post(ctx context.Context, h stream.Head, path string, report *fleet.Report) error {
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := h.Client.Do(request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	if ended := pki.EndedIn(resp.Header); ended != nil {
		return ended
	}
	switch resp.StatusCode {
	case http.StatusConflict:
		return &refusedError{strings.TrimSpace(string(text))}
	case http.StatusNoContent:
		if resp.Header.Get(fleet.RenewHeader) != "" && !r.Follow.IsHead() {
			return r.Disk.Renew()
		}
		return nil
	case http.StatusPreconditionFailed, http.StatusNotFound:
		if path == fleet.ChangesPath {
			return errBase
		}
	}
	return fmt.Errorf("it answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
}

// gather returns what there is to report now. With look the versions of the store are read anew.
func (r *Reporter) gather(look bool) *fleet.Report {
	now := r.Follow.Now()
	out := &fleet.Report{
		Program: r.Program, Started: r.Started, Sent: time.Now(), Store: now.State.Store, Revision: now.State.Revision,
		Versions: r.versions(look), Problems: *r.wrong.Load(),
	}
	out.Start = r.start
	if !r.Follow.IsHead() {
		out.Mark, out.MarkBefore = r.Disk.Present()
	}
	if settled := r.Follow.Settled(); settled != nil { // before Renaming, which is of that state or a later one
		out.Kept, out.Description = settled.State.Revision, settled.Digest
	}
	out.Renaming = r.Roots.Renaming()
	mine := now.Cluster.NodesOf(r.Server)
	out.Nodes = make([]fleet.Node, 0, len(mine))
	all := r.Problems.Text(problems.Of(problems.KindReplicas))
	for _, n := range mine {
		out.Nodes = append(out.Nodes, r.node(n, all))
	}
	return out
}

// node returns what there is to report of a node. all is what is wrong with all replicas.
func (r *Reporter) node(n *cluster.Node, all string) fleet.Node {
	s := r.Liveness.State(n.Name)
	out := fleet.Node{
		Name: n.Name, Stage: string(s.Stage), Since: s.Since, Began: s.Began, Text: s.Detail, Booting: s.Booting,
		Running: s.Running, LastCall: s.LastCall, LastSeen: s.LastSeen, Left: r.Roots.Left(n.Name), Problem: s.Error,
		Resident: r.Residents.of(n.Name),
	}
	if out.Problem == "" {
		out.Problem, out.Hint = s.Trouble.Text, s.Trouble.Hint
	}
	if v, ok := r.Roots.Shows(n.Name); ok {
		out.Shows, out.Digest = v.Ref(), v.Digest
	}
	if out.Problem == "" {
		out.Problem = cmp.Or(r.Problems.Text(problems.Node(n.Name)), all)
	}
	return out
}

// versions returns the versions of the store, and those that it gets.
func (r *Reporter) versions(look bool) []fleet.Version {
	if r.stale.Swap(false) || look {
		r.held = r.look()
	}
	return slices.Concat(r.Arriving(), r.held)
}

// look reads the versions of the store.
func (r *Reporter) look() (list []fleet.Version) {
	images, err := r.Store.Images()
	for _, name := range images {
		var held []image.Version
		if held, err = r.Store.Versions(name); err != nil {
			break
		}
		for _, v := range held {
			list = append(list, fleet.Version{Version: v.Ref(), Digest: v.Digest})
		}
	}
	if err != nil {
		r.Log.Warn("the store's versions cannot be listed", "error", err)
	}
	return list
}
