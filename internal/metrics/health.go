package metrics

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/singleflight"

	"dim/internal/cluster"
	"dim/internal/problems"
)

// healthTimeout bounds the checks of a server. A disk that hangs takes longer.
const healthTimeout = 5 * time.Second

// Health serves the state of this server. The first line of the answer is:
//
//   - "ok", with status 200: there is no problem.
//   - "degraded", with status 200: nodes that run are served, but something else is wrong, such as that the shared
//     state does not answer.
//   - "failing", with status 503: nodes get no answer, or cannot use their roots.
//
// Those who may read the metrics get the problems, one a line.
func Health(describe func() *cluster.Cluster, sources []problems.Source) http.Handler {
	var flight singleflight.Group
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Callers at the same time share one run of the checks. It may outlive them.
		run := flight.DoChan("", func() (any, error) {
			ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
			defer cancel()
			var list []problems.Problem
			for _, s := range sources {
				list = append(list, s(ctx)...)
			}
			return list, nil
		})
		var list []problems.Problem
		select {
		case done := <-run:
			list = done.Val.([]problems.Problem)
		case <-time.After(healthTimeout + time.Second):
			list = []problems.Problem{{
				About: problems.Of(problems.KindStore), Text: "the checks do not end: a disk or its file system hangs",
			}}
		}
		writeHealth(w, list, mayRead(describe(), r))
	})
}

// writeHealth writes the state that follows from problems.
func writeHealth(w http.ResponseWriter, list []problems.Problem, details bool) {
	word, status := "ok", http.StatusOK
	if len(list) > 0 {
		word = "degraded"
	}
	for _, p := range list {
		switch p.About.Kind {
		case problems.KindServer, problems.KindStore:
			word, status = "failing", http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	fmt.Fprintln(w, word)
	if !details {
		return
	}
	for _, p := range list {
		fmt.Fprintf(w, "%s: %s\n", p.About, p.Text)
	}
}
