package metrics

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"

	"dim/internal/cluster"
	"dim/internal/problems"
)

// healthAt asks for the health, whose problems are of the kinds, from an address.
func healthAt(t *testing.T, from string, kinds ...problems.Kind) (status int, text string) {
	t.Helper()
	c := description(t)
	h := Health(func() *cluster.Cluster { return c }, []problems.Source{
		func(context.Context) (list []problems.Problem) {
			for _, k := range kinds {
				list = append(list, problems.Problem{About: problems.Of(k), Text: "broken"})
			}
			return list
		},
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, healthRequest(from))
	return w.Code, w.Body.String()
}

func healthRequest(from string) *http.Request {
	r := httptest.NewRequest("GET", "/healthz", nil)
	local := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, local))
	r.RemoteAddr = from
	return r
}

func TestHealth(t *testing.T) {
	const here, node = "127.0.0.1:5000", "10.0.0.11:700"
	for _, tt := range []struct {
		name, from string
		kinds      []problems.Kind
		status     int
		text       string
	}{
		{"no problem", here, nil, 200, "ok\n"},
		{"the shared state is away", here, []problems.Kind{problems.KindSharedState}, 200,
			"degraded\nshared state: broken\n"},
		{"the store is broken", here, []problems.Kind{problems.KindSharedState, problems.KindStore}, 503,
			"failing\nshared state: broken\nstore: broken\n"},
		{"the server has no address", here, []problems.Kind{problems.KindServer}, 503, "failing\nserver: broken\n"},
		{"asked by a node", node, []problems.Kind{problems.KindStore}, 503, "failing\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, text := healthAt(t, tt.from, tt.kinds...); status != tt.status || text != tt.text {
				t.Errorf("%d %q, want %d %q", status, text, tt.status, tt.text)
			}
		})
	}
}

func TestChecksThatHangFail(t *testing.T) {
	c := description(t)
	synctest.Test(t, func(t *testing.T) {
		release, runs := make(chan struct{}), 0
		h := Health(func() *cluster.Cluster { return c }, []problems.Source{
			func(context.Context) []problems.Problem { runs++; <-release; return nil },
		})
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, healthRequest("10.0.0.11:700"))
				if w.Code != http.StatusServiceUnavailable {
					t.Errorf("%d %q", w.Code, w.Body)
				}
			})
		}
		all.Wait()
		if runs != 1 {
			t.Errorf("the checks run %d times", runs)
		}
		close(release)
		synctest.Wait()
	})
}
