package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"dim/internal/cluster"
)

// Path is the path on a head that reports are posted to. Those that are based on an earlier one are posted to
// ChangesPath, which heads of earlier programs do not have.
const (
	Path        = "/peer/v1/report"
	ChangesPath = "/peer/v1/report/changes"
)

// RenewHeader is in the answer to a server if another machine reports as that server, and has a disk with the same
// mark. The server then gives its disk a new mark, which the disk of the other machine does not have.
const RenewHeader = "Dim-Renew-Mark"

const (
	// maxReport bounds a report, in bytes. That of a server with 10,000 nodes has 4 MB.
	maxReport = 16 << 20
	// maxNodes, maxVersions and maxProblems bound what is kept of a report.
	maxNodes    = 20_000
	maxVersions = 10_000
	maxProblems = 100
	// maxText bounds each text of a report, in bytes.
	maxText = 1000
)

// Receiver keeps the reports that servers post. It implements http.Handler.
type Receiver struct {
	Fleet *Fleet
	// Caller returns which server makes a request. The error says why that is not known.
	Caller func(context.Context) (cluster.ServerName, error)
	// Marked is called with the mark of a server's disk, but not if it is in doubt which of two machines reports it.
	Marked func(server cluster.ServerName, mark, before string)

	mu       sync.Mutex
	arriving map[cluster.ServerName]bool // servers of which a report arrives now
}

// begin reports whether a report of a server may arrive now: one at a time, since each takes memory.
func (x *Receiver) begin(server cluster.ServerName) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.arriving[server] {
		return false
	}
	if x.arriving == nil {
		x.arriving = map[cluster.ServerName]bool{}
	}
	x.arriving[server] = true
	return true
}

func (x *Receiver) end(server cluster.ServerName) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.arriving, server)
}

// ServeHTTP implements http.Handler.
func (x *Receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	server, err := x.Caller(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if !x.begin(server) {
		http.Error(w, "another report of "+string(server)+" is still arriving", http.StatusTooManyRequests)
		return
	}
	defer x.end(server)
	var report Report
	err = json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport)).Decode(&report)
	if err != nil {
		http.Error(w, fmt.Sprintf("read report: %v", err), http.StatusBadRequest)
		return
	}
	report.check()
	is, err := x.Fleet.noteOrigin(server, &report, r.RemoteAddr, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	if !x.Fleet.Put(server, &report) {
		const text = "the report that this one is based on is not known here: send a whole one"
		http.Error(w, text, http.StatusPreconditionFailed)
		return
	}
	if is != inDoubt && report.Mark != "" {
		x.Marked(server, report.Mark, report.MarkBefore)
	}
	if is == copied {
		w.Header().Set(RenewHeader, "1")
	}
	w.WriteHeader(http.StatusNoContent)
}

// check makes all texts of a report such that they can be shown, and its numbers such that they can be true.
func (r *Report) check() {
	for i := range r.Nodes {
		n := &r.Nodes[i]
		n.Name = cluster.NodeName(plain(string(n.Name)))
		for _, text := range []*string{&n.Stage, &n.Left, &n.Text, &n.Problem, &n.Hint} {
			*text = plain(*text)
		}
		n.Resident.check()
	}
	for i := range r.Versions {
		if m := r.Versions[i].Missing; m != nil {
			m.check()
		}
	}
	for i := range r.Problems {
		p := &r.Problems[i]
		for _, text := range []*string{&p.About, &p.Text, &p.Hint} {
			*text = plain(*text)
		}
	}
	for _, text := range []*string{&r.Program, &r.Store, &r.Start, &r.Mark, &r.MarkBefore} {
		*text = plain(*text)
	}
}
