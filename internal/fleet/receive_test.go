package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// post posts a report of is1 and returns the status of the answer.
func post(f *Fleet, body string, caller error) int {
	x := &Receiver{Fleet: f, Caller: func(context.Context) (cluster.ServerName, error) { return "is1", caller }}
	w := httptest.NewRecorder()
	x.ServeHTTP(w, httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body)))
	return w.Code
}

func TestAReportIsTakenWhenItIsOne(t *testing.T) {
	many := testkit.Value(json.Marshal(Report{Nodes: make([]Node, maxNodes+1)}))(t)
	tests := []struct {
		name, body string
		caller     error
		want       int
	}{
		{"a report", `{"revision":7,"nodes":[{"node":"n01","shows":"compute@2","stage":"running"}]}`, nil, 204},
		{"of a caller that nobody knows", `{}`, errors.New("no"), 403},
		{"no JSON", `<html>`, nil, 400},
		{"a version that is none", `{"nodes":[{"shows":"@"}]}`, nil, 400},
		{"too many nodes", string(many), nil, 400},
		{"too many bytes", `{"program":"` + strings.Repeat("x", maxReport) + `"}`, nil, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := New()
			if got := post(f, tt.body, tt.caller); got != tt.want {
				t.Errorf("the answer is %d, want %d", got, tt.want)
			}
			if _, kept := f.Server("is1"); kept != (tt.want == 204) {
				t.Errorf("it is kept: %v", kept)
			}
		})
	}
}

func FuzzReport(f *testing.F) {
	f.Add(`{"nodes":[{"node":"n01","shows":"compute@2","since":"2026-01-01T00:00:00Z","problem":"x"}],"versions":[{}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		all := New()
		post(all, body, nil)
		h, ok := all.Server("is1")
		if !ok {
			return
		}
		for _, n := range h.Nodes {
			if len(n.Problem) > maxText || len(n.Stage) > maxText {
				t.Errorf("a text has %d bytes", max(len(n.Problem), len(n.Stage)))
			}
		}
	})
}
