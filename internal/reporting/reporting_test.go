package reporting

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"dim/internal/cluster"
	"dim/internal/fleet"
	"dim/internal/follow/stream"
	"dim/internal/testkit"
)

// head is a head that counts the nodes in the reports that it takes.
type head struct {
	fleet *fleet.Fleet
	nodes []int // in each report
}

// serve returns the head as servers reach it.
func (h *head) serve(t *testing.T) stream.Head {
	x := &fleet.Receiver{
		Fleet: h.fleet, Caller: func(context.Context) (cluster.ServerName, error) { return "is1", nil },
	}
	mux := http.NewServeMux()
	mux.Handle("POST "+fleet.Path, x)
	mux.Handle("POST "+fleet.ChangesPath, x)
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	return stream.Head{Name: "head", Client: &http.Client{Transport: h}, URL: ts.URL}
}

// RoundTrip implements http.RoundTripper.
func (h *head) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	var report fleet.Report
	if err := json.NewDecoder(body).Decode(&report); err != nil {
		return nil, err
	}
	h.nodes = append(h.nodes, len(report.Nodes))
	return http.DefaultTransport.RoundTrip(r)
}

func TestAReportHasTheNodesThatHaveChanged(t *testing.T) {
	h := &head{fleet: testkit.Value(fleet.Open(t.TempDir()))(t)}
	to := h.serve(t)
	started := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	report := func(second int, stages ...string) *fleet.Report {
		r := &fleet.Report{Started: started, Sent: started.Add(time.Duration(second) * time.Second)}
		for i, stage := range stages {
			r.Nodes = append(r.Nodes, fleet.Node{Name: cluster.NodeName(rune('a' + i)), Stage: stage})
		}
		return r
	}
	first := report(1, "off", "off", "off")
	second := report(2, "off", "running", "off")
	third := report(3, "off", "running", "off")
	fourth := report(4, "off", "running", "off", "off")
	for _, step := range []struct {
		name   string
		report *fleet.Report
		before *fleet.Report
		nodes  []int
	}{
		{"the first report", first, nil, []int{3}},
		{"one node has changed", second, first, []int{1}},
		{"nothing has changed", third, second, []int{0}},
		{"the head has another report than the server believes", second, first, []int{1, 3}},
		{"the description has another node", fourth, second, []int{4}},
	} {
		h.nodes = nil
		testkit.Must(t, new(Reporter).deliver(t.Context(), to, step.report, step.before))
		if !slices.Equal(h.nodes, step.nodes) {
			t.Errorf("%s: reports with %v nodes, want %v", step.name, h.nodes, step.nodes)
		}
		heard, _ := h.fleet.Server("is1")
		if len(heard.Nodes) != len(step.report.Nodes) {
			t.Fatalf("%s: the head has %d nodes", step.name, len(heard.Nodes))
		}
		for i, n := range step.report.Nodes {
			if heard.Nodes[i] != n {
				t.Errorf("%s: the head has %+v, want %+v", step.name, heard.Nodes[i], n)
			}
		}
	}
}

func TestAHeadOfAnEarlierProgramGetsWholeReports(t *testing.T) {
	paths := []string{}
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if paths = append(paths, r.URL.Path); r.URL.Path != fleet.Path {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer ts.Close()
	r := &fleet.Report{Sent: time.Now()}
	to := stream.Head{Name: "head", Client: ts.Client(), URL: ts.URL}
	testkit.Must(t, new(Reporter).deliver(t.Context(), to, r, r))
	if len(paths) != 2 || paths[1] != fleet.Path {
		t.Errorf("posted to %v", paths)
	}
}

func TestAReportThatFailedIsSentAgainBeforeTheInterval(t *testing.T) {
	heads := []stream.Head{{Name: "head"}}
	retries := func(err error, failures int) (pauses []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			r := New(Options{Log: slog.New(slog.DiscardHandler)})
			for range failures {
				if _, free := r.begin("head"); !free {
					t.Fatal("the head is busy")
				}
				began := time.Now()
				r.end("head", new(fleet.Report), err)
				if r.missedBy(heads) {
					t.Error("the report is sent again without a pause")
				}
				<-r.wake
				if !r.missedBy(heads) {
					t.Error("nothing is sent after the pause")
				}
				pauses = append(pauses, time.Since(began))
			}
			r.begin("head")
			if r.end("head", new(fleet.Report), nil); r.missedBy(heads) || r.heads["head"].pause != 0 {
				t.Error("after a report that was taken there is still something to send")
			}
		})
		return pauses
	}
	pauses := retries(errors.New("connection reset"), 10)
	if pauses[0] > firstRetry || pauses[1] < firstRetry || pauses[9] < interval/2 || pauses[9] > interval {
		t.Errorf("pauses of %v", pauses)
	}
	if pauses := retries(&refusedError{"another machine reports as is1"}, 1); pauses[0] < interval/2 {
		t.Errorf("a server that is refused reports again after %v", pauses[0])
	}
}

func TestAHeadThatWasBusyGetsTheNextReportAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Log: slog.New(slog.DiscardHandler)})
		r.begin("head")
		if _, free := r.begin("head"); free {
			t.Fatal("the head is not busy")
		}
		began := time.Now()
		r.end("head", new(fleet.Report), nil)
		if <-r.wake; time.Since(began) > 0 || !r.missedBy([]stream.Head{{Name: "head"}}) {
			t.Errorf("sent again after %v", time.Since(began))
		}
	})
}
