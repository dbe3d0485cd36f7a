package push

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dim/internal/cluster"
)

// Path is where nodes call.
const Path = "/node/hear"

// Handler answers the calls of nodes.
func (h *Hub) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, h.serve)
	return mux
}

func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	node, err := h.Who(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	said, err := read(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c := h.begin(node, &said)
	if said.Boot != "" {
		h.Seen(node, said.Heard)
	}
	defer h.end(node, c)
	looks, err := h.await(r.Context(), node, c, &said)
	switch {
	case r.Context().Err() != nil:
	case errors.Is(err, errReplaced):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		if said.Boot == "" { // it has no root yet, and nothing to look at again
			looks.Dirs = func(func(string) bool) {}
		}
		h.answer(w, node, &looks)
	}
}

// Patience with who calls. A node reads the answer while it looks, so that all of it may take long.
const (
	sayIn  = 10 * time.Second // for all of a call
	takeIn = time.Minute      // for each piece of the answer
)

// read reads a call.
func read(w http.ResponseWriter, r *http.Request) (Said, error) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(sayIn)) // a recorder of tests has none
	said, err := parse(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		_ = c.SetReadDeadline(time.Time{}) // that the caller hangs up is to be noticed for longer
	}
	return said, err
}

// patient gives a caller a while to take each piece of an answer.
type patient struct {
	http.ResponseWriter
	to *http.ResponseController
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.to.SetWriteDeadline(time.Now().Add(takeIn))
	return p.ResponseWriter.Write(b)
}

var errReplaced = errors.New("the node has called again")

// begin notes a call, which takes the place of one that still waits.
func (h *Hub) begin(node cluster.NodeName, said *Said) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil {
		r = &record{wake: make(chan struct{})}
		h.nodes[node] = r
	}
	if r.calls == 0 {
		h.Log.Info("node is told of switches", "node", node, "image", said.Image)
	}
	r.stir()
	r.calls++
	if said.Boot != "" { // else it asks only where to begin, before it has mounted its root
		said.Heard, said.Waiting = h.Now(), true
		r.said = *said
		h.news = r.mounted.learn(node, said) || h.news
	}
	return r.calls
}

func (h *Hub) end(node cluster.NodeName, call int) {
	if at, ok := h.noteEnd(node, call); ok {
		h.Seen(node, at)
	}
}

// noteEnd notes the end of a call, unless the node has called again. ok reports whether it shows that the node's process is there.
func (h *Hub) noteEnd(node cluster.NodeName, call int) (at time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.calls != call {
		return at, false
	}
	r.said.Waiting = false
	if r.said.Heard.IsZero() {
		return at, false
	}
	r.said.Heard = h.Now()
	return r.said.Heard, true
}

// await returns when there is something to look at, or when the call has waited long enough.
func (h *Hub) await(ctx context.Context, node cluster.NodeName, call int, said *Said) (Looks, error) {
	timeout := time.NewTimer(h.Hold)
	defer timeout.Stop()
	for late := false; ; {
		wake, ok := h.waits(node, call)
		if !ok {
			return Looks{}, errReplaced
		}
		looks, err := h.Since(node, said.Image, said.Stamp)
		if err != nil || late || looks.Stamp != said.Stamp {
			return looks, err
		}
		select {
		case <-wake:
		case <-timeout.C:
			late = true
		case <-ctx.Done():
			return Looks{}, ctx.Err()
		}
	}
}

// waits returns what ends the waiting of a call; ok is false when another has taken its place.
func (h *Hub) waits(node cluster.NodeName, call int) (wake <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.calls != call {
		return nil, false
	}
	return r.wake, true
}

// answer writes what is to be looked at.
func (h *Hub) answer(w http.ResponseWriter, node cluster.NodeName, l *Looks) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // deadlines are the connection's
	out := bufio.NewWriterSize(patient{w, http.NewResponseController(w)}, 16<<10)
	fmt.Fprintf(out, "now %s:%d\n", l.Image, l.Stamp)
	n := 0
	for dir := range l.Dirs {
		out.WriteString("look /")
		out.WriteString(escape(dir))
		if out.WriteByte('\n') != nil {
			return // it is gone
		}
		n++
	}
	out.WriteString("end\n")
	_ = out.Flush()
	if n > 0 {
		h.Log.Debug("node looks again", "node", node, "directories", n, "all", l.All)
	}
}

// escape writes bytes that would end a line or a word as %XX.
func escape(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == '%' || r == 0x7f }) {
		return path
	}
	var b strings.Builder
	for _, c := range []byte(path) {
		if c <= ' ' || c == '%' || c == 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
