package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// post posts a report of is1 and returns the status of the answer.
func post(f *Fleet, body string, caller error) int {
	x := &Receiver{
		Fleet: f, Caller: func(context.Context) (cluster.ServerName, error) { return "is1", caller },
		Marked: func(cluster.ServerName, string, string) {},
	}
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
		{"too many versions", `{"versions":[{}` + strings.Repeat(",{}", maxVersions) + `]}`, nil, 400},
		{"more problems than are kept", `{"problems":[{}` + strings.Repeat(",{}", maxProblems) + `]}`, nil, 204},
		{"no list", `{"nodes":{}}`, nil, 400},
		{"no list at all", `{"nodes":null}`, nil, 204},
		{"too many bytes", `{"program":"` + strings.Repeat("x", maxReport) + `"}`, nil, 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet()
			if got := post(f, tt.body, tt.caller); got != tt.want {
				t.Errorf("the answer is %d, want %d", got, tt.want)
			}
			if _, kept := f.Server("is1"); kept != (tt.want == 204) {
				t.Errorf("it is kept: %v", kept)
			}
		})
	}
}

// An element of two bytes takes hundreds of bytes of memory when it is decoded.
func TestAReportTakesLittleMemory(t *testing.T) {
	body := `{"nodes":[{}` + strings.Repeat(",{}", maxReport/4) + `]}`
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if got := post(newFleet(), body, nil); got != 400 {
		t.Errorf("the answer is %d, want 400", got)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16*maxReport {
		t.Errorf("a report of %d MB took %d MB", len(body)>>20, took>>20)
	}
}

// The texts of a report appear in tables on terminals.
func TestTheTextsOfAReportCanBeShown(t *testing.T) {
	const bad = `"\u001b[2J\r\nproblem  \u0007\u202egone"`
	f := newFleet()
	got := post(f, `{"program":`+bad+`,"store":`+bad+`,"versions":[{"missing":{"bytes":18446744073709551615,`+
		`"left":-1,"files":-1,"rate":-1,"problem":`+bad+`}}],"problems":[{"about":`+bad+`,"text":`+bad+`}],`+
		`"nodes":[{"node":`+bad+`,"stage":`+bad+`,"text":`+bad+`,"left":`+bad+`,"hint":`+bad+
		`,"problem":`+bad+`}]}`, nil)
	h, _ := f.Server("is1")
	if got != 204 {
		t.Fatalf("the answer is %d, want 204", got)
	}
	n, p, m := h.Nodes[0], h.Problems[0], h.Versions[0].Missing
	for _, text := range []string{
		h.Program, h.Store, string(n.Name), n.Stage, n.Text, n.Left, n.Hint, n.Problem, p.About, p.Text, m.Problem,
	} {
		if text != " [2J  problem    gone" {
			t.Errorf("a text of a report is %q", text)
		}
	}
	if m.Files != 0 || m.TimeLeft != 0 || m.Rate != 0 || m.Bytes != maxBytes {
		t.Errorf("a server lacks %+v", m)
	}
}

// One server could otherwise fill the memory with reports that never end.
func TestOneReportOfAServerArrivesAtATime(t *testing.T) {
	x := &Receiver{Fleet: newFleet(), Caller: func(context.Context) (cluster.ServerName, error) { return "is1", nil }}
	r, w := io.Pipe()
	first := make(chan int)
	go func() {
		rec := httptest.NewRecorder()
		x.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, Path, r))
		first <- rec.Code
	}()
	testkit.Value(w.Write([]byte("{")))(t)
	second := httptest.NewRecorder()
	x.ServeHTTP(second, httptest.NewRequest(http.MethodPost, Path, strings.NewReader("{}")))
	testkit.Value(w.Write([]byte("}")))(t)
	testkit.Must(t, w.Close())
	if a := <-first; a != http.StatusNoContent || second.Code != http.StatusTooManyRequests {
		t.Errorf("the answers are %d and %d, want 204 and 429", a, second.Code)
	}
	third := httptest.NewRecorder()
	x.ServeHTTP(third, httptest.NewRequest(http.MethodPost, Path, strings.NewReader("{}")))
	if third.Code != http.StatusNoContent {
		t.Errorf("a later report is answered with %d, want 204", third.Code)
	}
}

func FuzzReport(f *testing.F) {
	f.Add(`{"nodes":[{"node":"n01","shows":"compute@2","since":"2026-01-01T00:00:00Z","problem":"x"}],"versions":[{}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		all := newFleet()
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

func TestAReportOfChangesCompletesTheOneBefore(t *testing.T) {
	f := newFleet()
	const at = `"started":"2026-01-01T00:00:00Z","sent":"2026-01-01T00:00:0`
	changes := `{` + at + `2Z","base":"2026-01-01T00:00:01Z","nodes":[{"node":"n02","shows":"compute@2"}]}`
	if got := post(f, changes, nil); got != 412 {
		t.Errorf("the first report is based on another one: the answer is %d, want 412", got)
	}
	reported := f.Changed()
	if got := post(f, `{`+at+`1Z","nodes":[{"node":"n01"},{"node":"n02"},{"node":"n03"}]}`, nil); got != 204 {
		t.Fatalf("the answer is %d", got)
	}
	select {
	case <-reported:
	default:
		t.Error("nobody was told of the report")
	}
	before, _ := f.Server("is1")
	if got := post(f, changes, nil); got != 204 {
		t.Fatalf("the answer is %d", got)
	}
	h, _ := f.Server("is1")
	if len(h.Nodes) != 3 || h.nodes["n02"].Shows.Number != 2 || h.nodes["n03"] == nil || !h.Base.IsZero() {
		t.Errorf("the nodes are %+v", h.Nodes)
	}
	if before.nodes["n02"].Shows.Number != 0 {
		t.Error("the report before was changed")
	}
	if got := post(f, changes, nil); got != 412 {
		t.Errorf("a report that is based on the one before the last: the answer is %d, want 412", got)
	}
}
