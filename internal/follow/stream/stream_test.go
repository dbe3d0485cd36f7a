package stream

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/testkit"
)

// nodes returns a description with count nodes, of which is1 and is2 each serve half.
func nodes(count int) *cluster.Cluster {
	servers := []*cluster.Server{{Name: "is1"}, {Name: "is2"}}
	c := &cluster.Cluster{Servers: servers}
	for i := range count {
		name := cluster.NodeName(fmt.Sprintf("n%04d", i))
		c.Nodes = append(c.Nodes, &cluster.Node{Name: name, Servers: servers[i%2 : i%2+1]})
	}
	return c
}

// version returns a version of the image compute.
func version(number int) image.Version {
	return image.Version{
		Image: "compute", Number: number, Digest: image.Sum([]byte{byte(number)}),
		Root:    image.Entry{Type: image.Directory},
		Created: time.Date(2026, 1, 1, 0, 0, number, 0, time.UTC),
	}
}

// state returns a state of the store "s" at a revision, with as many versions as that.
func state(revision int64) coord.State {
	s := coord.State{
		Store: "s", Revision: revision,
		Description: &coord.Description{
			Files:  []coord.File{{Name: "cluster.xml", Data: []byte("<cluster/>")}},
			Digest: image.Sum([]byte("d")), Applied: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Revision: 1,
		},
		Images:  map[string]*coord.Image{"compute": {Last: int(revision), Current: 1, Tags: map[string]int{}}},
		Desired: coord.Refs{}, Next: coord.Refs{}, Rollouts: map[int]json.RawMessage{},
		Watches: map[string]coord.Watch{},
		Servers: map[string]coord.Server{}, Revoked: map[string]coord.Revocation{},
	}
	for i := range int(revision) {
		s.Images["compute"].Versions = append(s.Images["compute"].Versions, version(i+1))
	}
	return s
}

// head is a head of a test, which takes every caller for is1.
type head struct {
	stream  *Server
	web     *httptest.Server
	confirm error // what Confirm returns
	answers error // what Answers returns
}

func newHead(t *testing.T) *head {
	h := &head{confirm: errors.New("the shared state is not available")}
	h.stream = NewServer(ServerOptions{
		Caller:  func(context.Context) (cluster.ServerName, error) { return "is1", nil },
		Confirm: func(context.Context) error { return h.confirm },
		Answers: func(context.Context) error { return h.answers },
		Log:     slog.New(slog.DiscardHandler),
	})
	h.web = serve(t, h.stream)
	return h
}

// serve serves h until the test ends.
func serve(t *testing.T, h http.Handler) *httptest.Server {
	web := httptest.NewServer(h)
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
	})
	return web
}

// follower is an image server of a test.
type follower struct {
	*Client
	adopted chan coord.State
	sent    *counter
}

// counter counts what heads send.
type counter struct {
	mu    sync.Mutex
	bytes int
}

// RoundTrip implements http.RoundTripper.
func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(resp.Body, c), resp.Body}
	}
	return resp, err
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += len(p)
	return len(p), nil
}

func (c *counter) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.bytes
	c.bytes = 0
	return n
}

// follow lets a server that has a state follow heads until the test ends.
func follow(t *testing.T, has coord.State, heads ...*httptest.Server) *follower {
	f := &follower{adopted: make(chan coord.State, 1000), sent: &counter{}}
	f.Client = NewClient(ClientOptions{
		Heads: func() (list []Head) {
			for i, h := range heads {
				name := cluster.ServerName(fmt.Sprint("head", i+1))
				list = append(list, Head{Name: name, Client: &http.Client{Transport: f.sent}, URL: h.URL})
			}
			return list
		},
		Adopt: func(_ context.Context, s coord.State, _ bool) error {
			f.adopted <- s
			return nil
		},
		Tried: func() {}, Log: slog.New(slog.DiscardHandler),
	})
	f.deadAfter = time.Minute
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx, has) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return f
}

// next returns the next state that is adopted.
func (f *follower) next(t *testing.T) coord.State {
	t.Helper()
	select {
	case s := <-f.adopted:
		return s
	case <-time.After(time.Minute):
		t.Fatalf("no state is adopted; %+v", f.Status())
		return coord.State{}
	}
}

// idle fails the test when a state was adopted.
func (f *follower) idle(t *testing.T) {
	t.Helper()
	select {
	case s := <-f.adopted:
		t.Errorf("adopted revision %d of %s", s.Revision, s.Store)
	default:
	}
}

// of returns what is1 is to have of a state of a cluster.
func of(s coord.State, c *cluster.Cluster) coord.State {
	s.Watches = map[string]coord.Watch{}
	only := func(all coord.Refs) coord.Refs {
		some := coord.Refs{}
		for _, n := range c.Nodes {
			if ref, ok := all[string(n.Name)]; ok && n.Servers[0].Name == "is1" {
				some[string(n.Name)] = ref
			}
		}
		return some
	}
	s.Desired, s.Next = only(s.Desired), only(s.Next)
	rollouts := map[int]json.RawMessage{}
	for id := range s.Rollouts {
		rollouts[id] = json.RawMessage(fmt.Sprintf(`{"id":%d}`, id))
	}
	s.Rollouts = rollouts
	images := map[string]*coord.Image{}
	for name, im := range s.Images {
		bare := *im
		bare.Reserved = nil
		images[name] = &bare
	}
	s.Images = images
	return s
}

func TestAnImageServerHasWhatIsDeclaredForItsNodes(t *testing.T) {
	t.Parallel()
	h, c := newHead(t), nodes(8)
	s := state(1)
	h.stream.Adopt(s, c)
	f := follow(t, coord.State{}, h.web)
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		got := f.next(t)
		for got.Revision < s.Revision { // the time was due when nothing had changed for this server
			got = f.next(t)
		}
		if diff := cmp.Diff(of(s, c), got); diff != "" {
			t.Fatalf("revision %d (-want +got):\n%s", s.Revision, diff)
		}
		for unchanged := true; unchanged; {
			before := of(s, c)
			s = changed(random, s)
			h.stream.Adopt(s, c)
			before.Revision = s.Revision
			unchanged = cmp.Equal(before, of(s, c))
		}
	}
}

// changed returns the state after a random change.
func changed(random *rand.Rand, s coord.State) coord.State {
	s.Revision++
	node := fmt.Sprintf("n%04d", random.IntN(8))
	ref := image.Ref{Image: "compute", Number: 1 + random.IntN(3)}
	s.Desired, s.Next, s.Rollouts = maps.Clone(s.Desired), maps.Clone(s.Next), maps.Clone(s.Rollouts)
	s.Images = maps.Clone(s.Images)
	switch random.IntN(8) {
	case 0:
		s.Desired[node] = ref
	case 1:
		delete(s.Desired, node)
	case 2:
		s.Next[node] = ref
	case 3:
		delete(s.Next, node)
	case 4:
		s.Rollouts[random.IntN(4)] = json.RawMessage(fmt.Sprintf(`{"hook":"<%d>","id":0}`, s.Revision))
		for id := range s.Rollouts {
			s.Rollouts[id] = json.RawMessage(fmt.Sprintf(`{"check":"<%d>","id":%d}`, s.Revision, id))
		}
	case 5:
		delete(s.Rollouts, random.IntN(4))
	case 6:
		last := state(int64(1 + random.IntN(5)))
		s.Images["compute"] = last.Images["compute"]
		s.Images["compute"].Tags["latest"] = 1
		s.Images["compute"].Versions[0].Tags = []string{"latest"}
		s.Images["compute"].Reserved = map[int]coord.Reservation{9: {Server: "head"}}
	case 7:
		d := *s.Description
		d.Files = []coord.File{{Name: "cluster.xml", Data: fmt.Append(nil, "<cluster/> &", s.Revision)}}
		d.Revision = s.Revision
		s.Description = &d
	}
	return s
}

func TestARolloutOfThousandsOfNodesSendsOnlyWhatChanges(t *testing.T) {
	t.Parallel()
	h, c, s := newHead(t), nodes(2560), state(1)
	s.Description.Files[0].Data = bytes.Repeat([]byte("x"), 1<<20)
	h.stream.Adopt(s, c)
	f := follow(t, coord.State{}, h.web)
	f.next(t)
	if got := f.sent.take(); got < 1<<20 {
		t.Fatalf("the whole state has %d bytes", got)
	}
	s.Revision, s.Desired = 2, coord.Refs{}
	for _, n := range c.Nodes {
		s.Desired[string(n.Name)] = image.Ref{Image: "compute", Number: 1}
	}
	h.stream.Adopt(s, c)
	if got := len(f.next(t).Desired); got != 1280 {
		t.Errorf("%d nodes", got)
	}
	if got := f.sent.take(); got > 1280*40 {
		t.Errorf("%d bytes sent for 1,280 nodes", got)
	}
	s.Revision, s.Rollouts = 3, map[int]json.RawMessage{1: json.RawMessage(`{"id":1}`)}
	h.stream.Adopt(s, c)
	f.next(t)
	if got := f.sent.take(); got > 1000 {
		t.Errorf("%d bytes sent for one record", got)
	}
}

func TestAServerThatComesBackGetsTheDifference(t *testing.T) {
	t.Parallel()
	h, c := newHead(t), nodes(4)
	s := state(3)
	two := image.Ref{Image: "compute", Number: 2}
	s.Desired["n0000"], s.Desired["n0001"] = two, two
	h.stream.Adopt(s, c)
	kept := t.TempDir() + "/state.json"
	testkit.Must(t, coord.SaveState(kept, follow(t, coord.State{}, h.web).next(t)))
	later := s
	later.Revision, later.Desired = 4, coord.Refs{}
	h.stream.Adopt(later, c)
	for _, tt := range []struct {
		name string
		has  coord.State
		most int // bytes
	}{
		{"with its kept state", testkit.Value(coord.LoadState(kept))(t), 400},
		{"with another state of that revision", state(3), 5000},
	} {
		f := follow(t, tt.has, h.web)
		if diff := cmp.Diff(of(later, c), f.next(t)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if got := f.sent.take(); got > tt.most {
			t.Errorf("%s: %d bytes sent", tt.name, got)
		}
	}
}

func TestAnEarlierStateIsSentOnlyWhenItIsConfirmed(t *testing.T) {
	t.Parallel()
	other := state(2)
	other.Store = "new"
	for name, s := range map[string]coord.State{"an earlier revision": state(2), "another shared state": other} {
		h := newHead(t)
		h.stream.Adopt(s, nodes(4))
		f := follow(t, state(5), h.web)
		testkit.Eventually(t, "the head answers", func() bool {
			return strings.Contains(f.Status().Err.Error(), "cannot tell whether it is the latest")
		})
		f.idle(t)

		h = newHead(t)
		h.confirm = nil
		h.stream.Adopt(s, nodes(4))
		if got := follow(t, state(5), h.web).next(t); got.Revision != 2 || got.Store != s.Store {
			t.Errorf("%s: adopted revision %d of %s", name, got.Revision, got.Store)
		}
	}
}

func TestAHostileHeadChangesNothing(t *testing.T) {
	t.Parallel()
	has, err := positionOf(state(5))
	testkit.Must(t, err)
	line := func(m message) string { return string(testkit.Value(json.Marshal(m))(t)) + "\n" }
	set := facts{"desired/n0000": json.RawMessage(`"compute@2"`)}
	endless := func(w http.ResponseWriter) {
		block := bytes.Repeat([]byte("x"), 1<<20)
		for range 2 * maxMessage / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	tests := map[string]func(http.ResponseWriter){
		"a wrong digest": func(w http.ResponseWriter) {
			fmt.Fprint(w, line(message{Store: "s", From: 5, Revision: 6, Set: set, Digest: has.digest()}))
		},
		"an earlier revision": func(w http.ResponseWriter) {
			fmt.Fprint(w, line(message{Store: "s", Revision: 4, Set: set}))
		},
		"a change of another revision": func(w http.ResponseWriter) {
			fmt.Fprint(w, line(message{Store: "s", From: 4, Revision: 6, Set: set}))
		},
		"what is no JSON":    func(w http.ResponseWriter) { fmt.Fprint(w, "<html>\n") },
		"half a message":     func(w http.ResponseWriter) { fmt.Fprint(w, `{"store":`) },
		"a line without end": endless,
		"an error": func(w http.ResponseWriter) {
			http.Error(w, strings.Repeat("no ", 1e6), http.StatusTeapot)
		},
	}
	for name, answer := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{}, 100)
			f := follow(t, state(5), serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				answer(w)
				asked <- struct{}{}
			})))
			<-asked
			<-asked // it tries again
			f.idle(t)
			if s := f.Status(); s.Head != "" || s.Err == nil || len(s.Err.Error()) > 1000 {
				t.Errorf("status %+v", s)
			}
		})
	}
	t.Run("and the other head is followed", func(t *testing.T) {
		h := newHead(t)
		h.stream.Adopt(state(6), nodes(4))
		bad := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { tests["a wrong digest"](w) }))
		if got := follow(t, state(5), bad, h.web).next(t); got.Revision != 6 {
			t.Errorf("adopted revision %d", got.Revision)
		}
	})
}

func TestAHeadThatIsSilentIsLeft(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 100)
	silent := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	f := &follower{adopted: make(chan coord.State, 1), sent: &counter{}}
	f.Client = NewClient(ClientOptions{Adopt: func(context.Context, coord.State, bool) error { return nil }})
	f.deadAfter = 50 * time.Millisecond
	at, err := positionOf(state(5))
	testkit.Must(t, err)
	err = f.follow(t.Context(), Head{Name: "silent", Client: http.DefaultClient, URL: silent.URL}, &at, 0)
	if err == nil || err.Error() != "it has sent nothing for 50ms" {
		t.Errorf("it ends with %v", err)
	}
}

func TestAHeadWithoutTheSharedStateIsFollowedOnlyWhenThereIsNoOther(t *testing.T) {
	t.Parallel()
	var heads []*httptest.Server
	for revision := range 3 {
		h := newHead(t)
		h.stream.Adopt(state(6+int64(revision)), nodes(4))
		if revision < 2 {
			h.answers = errors.New("no quorum")
		}
		heads = append(heads, h.web)
	}
	if got := follow(t, state(5), heads...).next(t); got.Revision != 8 {
		t.Errorf("of three it follows the one with revision %d", got.Revision)
	}
	for n := range 2 {
		f := follow(t, state(5), heads[:n+1]...)
		f.next(t)
		testkit.Eventually(t, "the status says so", func() bool { return f.Status().Alone == "no quorum" })
	}
}

func TestAHeadTellsTheTimeWhileNothingChanges(t *testing.T) {
	t.Parallel()
	h := newHead(t)
	h.stream.Adopt(state(6), nodes(4))
	resp := testkit.Value(http.Get(h.web.URL + Path))(t)
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	first := testkit.Value(readMessage(lines))(t)
	beat := testkit.Value(readMessage(lines))(t)
	if first.Revision != 6 || beat.Store != "" || !beat.Time.After(first.Time) {
		t.Errorf("the messages are %+v and %+v", first, beat)
	}
}
