package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"dim/internal/cluster"
)

// Path is the path on a head that reports are posted to.
const Path = "/peer/v1/report"

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
}

// ServeHTTP implements http.Handler.
func (x *Receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	server, err := x.Caller(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	var report Report
	err = json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReport)).Decode(&report)
	if err == nil {
		err = report.check()
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("read report: %v", err), http.StatusBadRequest)
		return
	}
	x.Fleet.Put(server, &report)
	w.WriteHeader(http.StatusNoContent)
}

// check returns what is wrong with a report, and cuts texts that are too long.
func (r *Report) check() error {
	if len(r.Nodes) > maxNodes || len(r.Versions) > maxVersions {
		return fmt.Errorf("%d nodes and %d versions; at most %d and %d", len(r.Nodes), len(r.Versions), maxNodes,
			maxVersions)
	}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		for _, text := range []*string{&n.Stage, &n.Left, &n.Text, &n.Problem, &n.Hint} {
			*text = (*text)[:min(len(*text), maxText)]
		}
	}
	for i := range r.Versions {
		if m := r.Versions[i].Missing; m != nil {
			m.Problem = m.Problem[:min(len(m.Problem), maxText)]
		}
	}
	r.Problems = r.Problems[:min(len(r.Problems), maxProblems)]
	for i := range r.Problems {
		p := &r.Problems[i]
		for _, text := range []*string{&p.About, &p.Text, &p.Hint} {
			*text = (*text)[:min(len(*text), maxText)]
		}
	}
	r.Program, r.Store = r.Program[:min(len(r.Program), maxText)], r.Store[:min(len(r.Store), maxText)]
	return nil
}
