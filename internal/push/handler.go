package push

import (
	"context"
	"errors"
	"net/http"
	"time"

	"dim/internal/cluster"
)

// path is where nodes call.
const path = "/node/hear"

const (
	// callTimeout is how long a call waits for a change. It is below the minute after which some firewalls drop a
	// silent connection.
	callTimeout = 50 * time.Second
	// readTimeout bounds the arrival of a call.
	readTimeout = 10 * time.Second
)

// Handler returns the HTTP handler of the nodes' calls.
func (h *Hub) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+path, h.serve)
	return mux
}

func (h *Hub) serve(w http.ResponseWriter, r *http.Request) {
	node, err := h.Caller(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	status, err := readCall(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	call := h.beginCall(node, &status)
	if status.Boot != "" {
		h.Seen(node, status.Called)
	}
	defer h.endCall(node, call)
	changes, err := h.await(r.Context(), node, call, &status)
	switch {
	case r.Context().Err() != nil:
	case errors.Is(err, errSuperseded):
		http.Error(w, err.Error(), http.StatusConflict)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		if status.Boot == "" { // the node has no root yet, and nothing to look at again
			changes.Dirs = func(func(string) bool) {}
		}
		h.writeAnswer(w, node, &changes)
	}
}

// readCall reads a call.
func readCall(w http.ResponseWriter, r *http.Request) (Status, error) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(readTimeout)) // a recorder of tests has none
	status, err := decode(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		_ = c.SetReadDeadline(time.Time{}) // so that the server notices when the caller hangs up later
	}
	return status, err
}

var errSuperseded = errors.New("the node has called again")

// beginCall records a call, which ends one of the same node that still waits. It returns the call's number.
func (h *Hub) beginCall(node cluster.NodeName, status *Status) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil {
		r = &record{wake: make(chan struct{})}
		h.nodes[node] = r
	}
	if r.calls == 0 {
		h.Log.Info("node waits for switches", "node", node, "image", status.Image)
	}
	r.wakeCall()
	r.calls++
	if status.Boot != "" { // else it asks only where to begin, before it has mounted its root
		status.Called, status.Waiting = time.Now(), true
		r.status = *status
		h.unsaved = r.mounts.update(node, status) || h.unsaved
	}
	return r.calls
}

func (h *Hub) endCall(node cluster.NodeName, call int) {
	if at, ok := h.recordEnd(node, call); ok {
		h.Seen(node, at)
	}
}

// recordEnd records the end of a call. ok is false if the node has called again or reported nothing.
func (h *Hub) recordEnd(node cluster.NodeName, call int) (at time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.calls != call {
		return at, false
	}
	r.status.Waiting = false
	if r.status.Called.IsZero() {
		return at, false
	}
	r.status.Called = time.Now()
	return r.status.Called, true
}

// await returns what has changed since the call's stamp, as soon as there is something, or after callTimeout.
func (h *Hub) await(ctx context.Context, node cluster.NodeName, call int, status *Status) (Changes, error) {
	timeout := time.NewTimer(callTimeout)
	defer timeout.Stop()
	for late := false; ; {
		wake, ok := h.wakeOf(node, call)
		if !ok {
			return Changes{}, errSuperseded
		}
		changes, err := h.Changes(node, status.Image, status.Stamp)
		if err != nil || late || changes.Stamp != status.Stamp {
			return changes, err
		}
		select {
		case <-wake:
		case <-timeout.C:
			late = true
		case <-ctx.Done():
			return Changes{}, ctx.Err()
		}
	}
}

// wakeOf returns the channel that wakes a call; ok is false when the node has called again.
func (h *Hub) wakeOf(node cluster.NodeName, call int) (wake <-chan struct{}, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.calls != call {
		return nil, false
	}
	return r.wake, true
}
