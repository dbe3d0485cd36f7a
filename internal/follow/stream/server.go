package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/periodic"
)

const (
	// beatInterval is the interval between messages that only tell the time.
	beatInterval = 2 * time.Second
	// writeTimeout bounds the time in which a server takes a message.
	writeTimeout = 30 * time.Second
	// kept is how many states are kept, so that a server that was cut off for a moment gets a difference.
	kept = 16
)

// Path is the path of the stream on a head.
const Path = "/peer/v1/state"

// editsParameter is the query parameter of servers that take changes of descriptions.
const editsParameter = "edits"

// ServerOptions are the options of a Server. All are needed.
type ServerOptions struct {
	// Caller returns which server makes a request. The error says why that is not known.
	Caller func(context.Context) (cluster.ServerName, error)
	// Confirm returns nil when the state that was given to Adopt last is what the shared state says now.
	Confirm func(context.Context) error
	// Answers returns nil when the shared state answers.
	Answers func(context.Context) error
	Log     *slog.Logger
}

// Server gives the declared state of a head to image servers. Its methods may be called from any number of goroutines.
type Server struct {
	ServerOptions

	adopting sync.Mutex // guards maker and of; taken before mu
	maker    maker
	of       nodesByServer

	mu      sync.Mutex
	states  []*adopted    // the latest last
	changed chan struct{} // closed when another is added

	asking sync.Mutex // held by who asks whether the shared state answers
	asked  time.Time
	alone  string // what it was, in words; "": it answered
}

// adopted is a state that a head has adopted. It is never changed.
type adopted struct {
	store    string
	revision int64
	common   *common
	nodes    facts                            // about all nodes
	of       map[cluster.ServerName][]string  // the nodes of each server
	changes  func(from *common) commonChanges // memoized
}

// commonChanges are what changes the facts that all servers get.
type commonChanges struct {
	set     facts
	removed []string
	edit    *descriptionEdit // in place of the description in set; nil: there is none, or it is the same
}

// NewServer returns a Server that has no state before Adopt.
func NewServer(o ServerOptions) *Server {
	return &Server{ServerOptions: o, changed: make(chan struct{})}
}

// Adopt makes s with its description c the state that servers get from now on.
func (s *Server) Adopt(state coord.State, c *cluster.Cluster) {
	if state.Revision == 0 {
		return // nothing was ever declared
	}
	s.adopting.Lock()
	defer s.adopting.Unlock()
	p, err := s.maker.position(state)
	if err != nil {
		s.Log.Error("declared state is not sent to image servers", "error", err)
		return
	}
	s.of.update(c, state.Layers)
	a := &adopted{
		store: p.store, revision: p.revision, common: p.common, nodes: p.nodes, of: s.of.nodes,
		changes: changesTo(p.common),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states[max(0, len(s.states)-kept+1):len(s.states):len(s.states)], a)
	close(s.changed)
	s.changed = make(chan struct{})
}

// last returns the latest state, nil before the first one. It is called with mu held.
func (s *Server) last() *adopted {
	if len(s.states) == 0 {
		return nil
	}
	return s.states[len(s.states)-1]
}

// nodesByServer are the nodes of each server: those that the description gives it, and those whose layer it has.
type nodesByServer struct {
	cluster *cluster.Cluster
	layers  coord.Holders
	nodes   map[cluster.ServerName][]string // never changed, but replaced
}

// update finds the nodes by a description and the servers that have layers.
func (b *nodesByServer) update(c *cluster.Cluster, layers coord.Holders) {
	if b.cluster == c && maps.Equal(b.layers, layers) {
		return
	}
	b.cluster, b.layers, b.nodes = c, layers, map[cluster.ServerName][]string{}
	for _, n := range c.Nodes {
		at := cluster.ServerName(layers[string(n.Name)])
		for _, server := range n.Servers {
			b.nodes[server.Name] = append(b.nodes[server.Name], string(n.Name))
			if server.Name == at {
				at = ""
			}
		}
		if at != "" {
			b.nodes[at] = append(b.nodes[at], string(n.Name))
		}
	}
}

// changesTo returns a function that returns what changes facts to those of c, and computes it once for each.
func changesTo(c *common) func(from *common) commonChanges {
	var mu sync.Mutex
	known := map[*common]commonChanges{}
	return func(from *common) commonChanges {
		mu.Lock()
		defer mu.Unlock()
		d, ok := known[from]
		if !ok && from != c {
			d.set, d.removed = from.facts.difference(c.facts)
			if d.set[keyDescription] != nil {
				d.edit = newEdit(from.description, c.description)
			}
			known[from] = d
		}
		return d
	}
}

// now returns the latest state, and what is closed when there is another.
func (s *Server) now() (*adopted, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last(), s.changed
}

// position returns the position of a server that has adopted a.
func (a *adopted) position(server cluster.ServerName) position {
	return position{
		store: a.store, revision: a.revision, common: a.common, nodes: a.nodes.ofNodes(a.of[server]),
	}
}

// find returns the position of a server that says what it has; the zero position if it has nothing that is known here.
func (s *Server) find(server cluster.ServerName, r *http.Request) position {
	q := r.URL.Query()
	revision, err := strconv.ParseInt(q.Get("revision"), 10, 64)
	if err != nil || revision <= 0 {
		return position{}
	}
	p := position{store: q.Get("store"), revision: revision}
	s.mu.Lock()
	states := s.states
	s.mu.Unlock()
	var digest image.Digest
	if digest.UnmarshalText([]byte(q.Get("digest"))) != nil {
		return p
	}
	for _, a := range states {
		if a.store != p.store || a.revision != p.revision {
			continue
		}
		if at := a.position(server); at.digest() == digest {
			return at
		}
	}
	return p
}

// ServeHTTP implements http.Handler: it sends the state, and each later one, until the request ends. The query
// parameters store, revision and digest say which state the server has.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	server, err := s.Caller(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	has := s.find(server, r)
	if err := s.await(r.Context(), &has); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := &lines{w: w, control: http.NewResponseController(w), edits: r.URL.Query().Has(editsParameter)}
	if err := s.send(r.Context(), out, server, has); err != nil && r.Context().Err() == nil {
		s.Log.Debug("stream of the declared state ended", "server", string(server), "error", err)
	}
}

// await returns nil when this head has a state for a server that has p.
func (s *Server) await(ctx context.Context, p *position) error {
	now, _ := s.now()
	if now == nil {
		return fmt.Errorf("this head has no declared state yet")
	}
	if p.leadsTo(now.store, now.revision) {
		return nil
	}
	if err := s.Confirm(ctx); err != nil {
		return fmt.Errorf("this head has revision %d, and cannot tell whether it is the latest: %w", now.revision, err)
	}
	return nil
}

// send sends states and the time until ctx ends or the server takes no more. A state in which nothing has changed for
// the server is sent with the next time: only its revision is new.
func (s *Server) send(ctx context.Context, out *lines, server cluster.ServerName, has position) error {
	beat := time.NewTimer(periodic.Next(beatInterval)) // all servers get the time at the same moment
	defer beat.Stop()
	for due := true; ; {
		now, changed := s.now()
		next := now.position(server)
		if due || !has.says(&next) {
			m := &message{}
			if has.common == nil || has.store != next.store || has.revision != next.revision {
				if err := s.await(ctx, &has); err != nil {
					return err
				}
				if latest, _ := s.now(); latest != now {
					continue
				}
				m = has.messageTo(&next, now, out)
				has = next
			}
			m.Alone = s.isAlone(ctx)
			if err := out.write(m); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			due = false
		case <-beat.C:
			due = true
			beat.Reset(periodic.Next(beatInterval))
		}
	}
}

// isAlone returns why the shared state does not answer, as it was found at most a beat ago; "" if it does.
func (s *Server) isAlone(ctx context.Context) string {
	s.asking.Lock()
	defer s.asking.Unlock()
	if time.Since(s.asked) < beatInterval {
		return s.alone
	}
	ctx, cancel := context.WithTimeout(ctx, beatInterval)
	defer cancel()
	s.alone = ""
	if err := s.Answers(ctx); err != nil {
		s.alone = err.Error()
	}
	s.asked = time.Now()
	return s.alone
}

// messageTo returns the message that leads to next, which a server has when it has adopted to.
func (p *position) messageTo(next *position, to *adopted, out *lines) *message {
	m := &message{
		Store: next.store, Revision: next.revision, Digest: next.digest(),
		Earlier: !p.leadsTo(next.store, next.revision),
	}
	if p.common == nil || m.Earlier || p.store == "" {
		m.Set = next.common.facts.with(next.nodes, nil)
		return m
	}
	m.From = p.revision
	all := to.changes(p.common)
	set, removed := p.nodes.difference(next.nodes)
	m.Set, m.Removed = all.set.with(set, nil), append(removed, all.removed...)
	if out.edits && all.edit != nil {
		m.Edit = all.edit
		delete(m.Set, keyDescription)
	}
	return m
}

// lines writes messages.
type lines struct {
	w       http.ResponseWriter
	control *http.ResponseController
	edits   bool // the server takes changes of descriptions
}

func (l *lines) write(m *message) error {
	m.Time = time.Now()
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(b) >= maxMessage {
		return fmt.Errorf("the state has %d bytes, and image servers take %d at most", len(b), maxMessage)
	}
	if err := l.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := l.w.Write(append(b, '\n')); err != nil {
		return err
	}
	return l.control.Flush()
}
