// Package reporting tells heads what this server holds and what its nodes show: at intervals, and soon after something
// changed. It tells every head, so that each answers for all servers.
//
// A head that cannot be reached misses reports, which are complete: the next one makes up for all.
//
// # What it must not know
//
// What heads do with a report.
package reporting

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/cluster"
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
	// checkInterval is the interval between checks whether something has changed.
	checkInterval = 500 * time.Millisecond
	// sendTimeout bounds the time that a head takes for a report.
	sendTimeout = 10 * time.Second
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
	Server   cluster.ServerName // this server
	Program  string             // its version
	Started  time.Time
	Follow   *follow.Follower
	Store    *store.Store
	Liveness *liveness.Tracker
	Roots    Roots
	Arriving func() []fleet.Version // versions that the store gets
	Problems *problems.List
	Fleet    *fleet.Fleet         // where this server's own reports are kept
	Heads    func() []stream.Head // the other heads
	Disk     *diskmark.Disk
	Log      *slog.Logger
}

// Reporter reports.
type Reporter struct {
	Options
	start string // Report.Start

	wrong atomic.Pointer[[]fleet.Problem] // what is wrong with this server

	mu       sync.Mutex
	sending  map[cluster.ServerName]bool    // heads that take a report now
	missed   map[cluster.ServerName]bool    // heads that have not taken the last one
	refusals map[cluster.ServerName]refusal // of heads that refuse the reports
}

// refusal is why a head refuses the reports.
type refusal struct {
	*refusedError
	at time.Time
}

// New returns a Reporter.
func New(o Options) *Reporter {
	r := &Reporter{
		Options: o, start: rand.Text(), sending: map[cluster.ServerName]bool{}, missed: map[cluster.ServerName]bool{},
		refusals: map[cluster.ServerName]refusal{},
	}
	r.wrong.Store(&[]fleet.Problem{})
	return r
}

// Adopted drops what servers reported that are no longer declared. follow.Follower calls it.
func (r *Reporter) Adopted(_ context.Context, now *follow.Declared) {
	r.Fleet.Keep(func(s cluster.ServerName) bool {
		_, ok := now.Cluster.Server(s)
		return ok
	})
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	var senders sync.WaitGroup
	defer senders.Wait()
	senders.Go(func() { r.watchProblems(ctx) })
	var last *fleet.Report
	report := func(ctx context.Context) {
		heads := r.Heads()
		old := last == nil || time.Since(last.Sent) >= interval
		if !old && len(heads) == 0 {
			return
		}
		next := r.report()
		if !old && last.Same(next) && !r.missedBy(heads) {
			return
		}
		last = next
		r.Fleet.Put(r.Server, next)
		for _, h := range heads {
			if r.begin(h.Name) {
				senders.Go(func() { r.end(h.Name, send(ctx, h, next)) })
			}
		}
	}
	report(ctx)
	return periodic.Run(ctx, checkInterval, report)
}

// watchProblems finds out at intervals what is wrong with this server, until ctx ends. It takes a while at times.
func (r *Reporter) watchProblems(ctx context.Context) {
	_ = periodic.Run(ctx, interval, func(ctx context.Context) {
		if len(r.Heads()) == 0 {
			return // nobody asks for it
		}
		list := []fleet.Problem{}
		for _, p := range r.Problems.All(ctx) {
			ofOther := p.About.Kind == problems.KindServer && p.About.Name != string(r.Server)
			if ofOther || p.About.Kind == problems.KindNode || p.About.Kind == problems.KindMachine {
				continue
			}
			list = append(list, fleet.Problem{About: p.About.String(), Text: p.Text, Hint: p.Hint, Since: p.Since})
		}
		r.wrong.Store(&list)
	})
}

// missedBy reports whether one of some heads, which was busy with an earlier report, has not got the last one.
func (r *Reporter) missedBy(heads []stream.Head) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(heads, func(h stream.Head) bool { return r.missed[h.Name] && !r.sending[h.Name] })
}

// begin reports whether a head can be sent a report now.
func (r *Reporter) begin(head cluster.ServerName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy := r.sending[head]
	r.sending[head], r.missed[head] = true, busy
	return !busy
}

// end notes that a head has taken a report, or why it has not. What it missed is sent with the next one.
func (r *Reporter) end(head cluster.ServerName, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sending[head] = false
	if e, ok := errors.AsType[*refusedError](err); ok {
		r.refusals[head] = refusal{e, time.Now()}
	} else if err == nil {
		delete(r.refusals, head)
	}
	if err != nil {
		r.missed[head] = false
		r.Log.Debug("head has not taken the report", "server", string(head), "error", err)
	}
}

// refusedError is a report that was refused, because another machine reports as this server, or because the identity of
// this server has ended.
type refusedError struct {
	text  string
	ended *pki.RevokedError // nil: another machine reports
}

func (e *refusedError) Error() string { return e.text }

// Refused is a problems.Source: heads refuse the reports. A server that is no head learns in other ways that its
// identity has ended.
func (r *Reporter) Refused(context.Context) (list []problems.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, head := range slices.Sorted(maps.Keys(r.refusals)) {
		e := r.refusals[head]
		if !fleet.Fresh(e.at) || e.ended != nil && !r.Follow.IsHead() {
			continue // the head does not answer any more, or the other machine has ended
		}
		p := problems.Problem{
			About: problems.Subject{Kind: problems.KindServer, Name: string(r.Server)},
			Text:  fmt.Sprintf("head %s refuses its reports: %s", head, e.text),
			Hint: "switch off the machine that is a copy; if it is to be a server of its own: on a head " +
				"dim token --for NAME, then on the copy the command that it prints, with --replace",
		}
		if e.ended != nil {
			p = endedProblem(r.Server, head, e.ended)
		}
		return append(list, p)
	}
	return list
}

// endedProblem is that a head has ended the identity of this one, which was away: dim server recover was run there.
func endedProblem(me, head cluster.ServerName, ended *pki.RevokedError) problems.Problem {
	return problems.Problem{
		About: problems.Of(problems.KindSharedState), Since: ended.Time,
		Text: fmt.Sprintf("head %s goes on without this one, whose identity ended at %s: what is declared here does "+
			"not reach the servers that follow %s", head, ended.Time.Local().Format(time.DateTime), head),
		Hint: fmt.Sprintf("declare nothing here; stop this head and let it join again: on %s dim token --for %s "+
			"--roles head, then here the command that it prints, with --replace", head, me),
	}
}

// send sends a report to a head.
func send(ctx context.Context, h stream.Head, report *fleet.Report) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	body, err := json.Marshal(report)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+fleet.Path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := h.Client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	ended := pki.ToldRevoked(resp.Header)
	if resp.StatusCode == http.StatusConflict || ended != nil {
		return &refusedError{strings.TrimSpace(string(text)), ended}
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("it answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// report returns what there is to report now.
func (r *Reporter) report() *fleet.Report {
	now := r.Follow.Now()
	out := &fleet.Report{
		Program: r.Program, Started: r.Started, Sent: time.Now(), Store: now.State.Store, Revision: now.State.Revision,
		Versions: r.versions(), Problems: *r.wrong.Load(),
	}
	out.Start = r.start
	if !r.Follow.IsHead() {
		out.Mark, out.MarkBefore = r.Disk.Present()
	}
	if settled := r.Follow.Settled(); settled != nil { // before Renaming, which is of that state or a later one
		out.Kept, out.Description = settled.State.Revision, settled.Digest
	}
	out.Renaming = r.Roots.Renaming()
	for _, n := range now.Cluster.Nodes {
		if n.Servers[0].Name == r.Server {
			out.Nodes = append(out.Nodes, r.node(n))
		}
	}
	return out
}

func (r *Reporter) node(n *cluster.Node) fleet.Node {
	s := r.Liveness.State(n.Name)
	out := fleet.Node{
		Name: n.Name, Stage: string(s.Stage), Since: s.Since, Began: s.Began, Text: s.Detail, Booting: s.Booting,
		Running: s.Running, LastCall: s.LastCall, LastSeen: s.LastSeen, Left: r.Roots.Left(n.Name), Problem: s.Error,
	}
	if out.Problem == "" {
		out.Problem, out.Hint = s.Trouble.Text, s.Trouble.Hint
	}
	if v, ok := r.Roots.Shows(n.Name); ok {
		out.Shows, out.Digest = v.Ref(), v.Digest
	}
	for _, about := range []problems.Subject{problems.Node(n.Name), problems.Of(problems.KindReplicas)} {
		if out.Problem == "" {
			out.Problem = r.Problems.Text(about)
		}
	}
	return out
}

// versions returns the versions of the store, and those that it gets.
func (r *Reporter) versions() []fleet.Version {
	list := r.Arriving()
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
