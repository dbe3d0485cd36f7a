package pki

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// answer is what a head answers to a machine that joins.
func answer(t *testing.T, head *Credentials, j *Joining, name cluster.ServerName) (root, chain []byte) {
	t.Helper()
	key := testkit.Value(ParseRequest(testkit.Value(j.Request())(t)))(t)
	id := Identity{ID: NewID(), Name: name, Roles: []cluster.Role{"image"}}
	return head.Root().Raw, testkit.Value(head.Authority().Certify(key, id, time.Now()))(t)
}

func accept(Identity) error { return nil }

// TestAJoinIsInterrupted ends a join before each file that it moves to its place.
func TestAJoinIsInterrupted(t *testing.T) {
	_, head := newHead(t)
	for _, done := range []int{0, 1, 2, 3} {
		data, old := newHead(t) // a machine that was a head by mistake
		j := testkit.Value(BeginJoin(data, ReplaceIdentity))(t)
		root, chain := answer(t, head, j, "is07")
		dir := filepath.Join(data, joiningDir)
		key := testkit.Value(os.ReadFile(filepath.Join(dir, keyFile)))(t)
		stop := errors.New("stop")
		if err := j.Complete(Answer{Root: root, Chain: chain}, func(Identity) error { return stop }); err != stop {
			t.Errorf("an error before the end: %v", err)
		}
		if id := testkit.Value(Open(data))(t).Identity(); id.ID != old.Identity().ID {
			t.Errorf("before the end of the join it is %+v", id)
		}
		testkit.Must(t, j.Complete(Answer{Root: root, Chain: chain}, accept), os.MkdirAll(dir, 0o700))
		for name, text := range map[string][]byte{
			keyFile: key, certFile: chain, rootFile: encode(head.Root()), readyFile: nil,
		} {
			testkit.Must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
		}
		for _, name := range []string{"identity/" + certFile, "identity/" + keyFile, "ca/" + certFile}[:done] {
			testkit.Must(t, os.WriteFile(filepath.Join(data, name), []byte("old"), 0o600))
		}
		c := testkit.Value(Open(data))(t)
		if id := c.Identity(); id.Name != "is07" || id.Cluster != head.Identity().Cluster || c.Authority() != nil {
			t.Errorf("after %d files: %+v", done, id)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Error("the directory of the join is left")
		}
	}
}

func TestAJoinGoesOnWithItsKey(t *testing.T) {
	_, head := newHead(t)
	data := filepath.Join(t.TempDir(), "data")
	first := testkit.Value(BeginJoin(data, KeepIdentity))(t)
	if err := Check(data); !errors.Is(err, ErrNotInitialised) {
		t.Errorf("before the end: %v", err)
	}
	second := testkit.Value(BeginJoin(data, KeepIdentity))(t)
	root, chain := answer(t, head, first, "is07")
	testkit.Must(t, second.Complete(Answer{Root: root, Chain: chain}, accept))
	if _, err := BeginJoin(data, KeepIdentity); !errors.Is(err, ErrInitialised) {
		t.Errorf("another join: %v", err)
	}
	third := testkit.Value(BeginJoin(data, ReplaceIdentity))(t)
	if err := third.Complete(Answer{Root: root, Chain: chain}, accept); err == nil {
		t.Error("a certificate for another key completes a join")
	}
}

func TestAJoiningMachineKnowsTheHead(t *testing.T) {
	_, head := newHead(t)
	_, other := newHead(t)
	image := certifyOther(t, head, Identity{ID: "a", Name: "is1", Roles: []cluster.Role{"image"}}, time.Now())
	own := append(decode(testkit.Value(head.Authority().Certify(&head.key.PublicKey, head.Identity(), time.Now()))(t)),
		head.Root())
	if err := VerifyHead(own, Digest(head.Root())); err != nil {
		t.Errorf("the head: %v", err)
	}
	if err := VerifyHead(own, Digest(other.Root())); err == nil {
		t.Error("the head of another cluster is accepted")
	}
	if err := VerifyHead(append(image, head.Root()), Digest(head.Root())); err == nil {
		t.Error("an image server is accepted as a head")
	}
	// Somebody in between has the root's certificate, which is no secret, and another head's key.
	mixed := append(decode(testkit.Value(other.Authority().Certify(&other.key.PublicKey, head.Identity(),
		time.Now()))(t)), head.Root())
	if err := VerifyHead(mixed, Digest(head.Root())); err == nil {
		t.Error("somebody in between is accepted")
	}
}
