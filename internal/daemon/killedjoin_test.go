package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/membership"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// joinerName is the name of a variable in the environment of a process that joins as head2. Its arguments are the data
// directory, the URL, the token, and "replace" or "keep". All its calls for files are made by its first thread.
const joinerName = "dim-joiner"

func joinAsChild(args []string) int {
	runtime.LockOSThread()
	j := membership.Join{Data: args[0], URL: args[1], Token: args[2], Name: "head2"}
	if args[3] == "replace" {
		j.Existing = pki.ReplaceIdentity
	}
	if _, _, err := Join(context.Background(), j); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// A join that is killed before any of its calls that change the disk leaves a machine that has joined or one that has
// not. The same line completes it, with a new token if the first one was used up.
func TestAJoinIsKilledAnywhere(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is needed: dist/deps test")
	}
	head := newSite(t, "127.0.0.2")
	withHeads(t, head, "127.0.0.3")
	head.start()
	for mode, step := range map[string]int{"keep": 2, "replace": 5} { // 1 is all, and takes a minute
		t.Run(mode, func(t *testing.T) {
			k := &killedJoin{t: t, strace: strace, head: head, mode: mode}
			k.listen()
			for k.nth = 1; k.killed(); k.nth += step {
			}
			if k.nth < 20 {
				t.Errorf("a join has fewer than %d calls", k.nth)
			}
		})
	}
}

// killedJoin is a join that is killed at its nth call.
type killedJoin struct {
	t      *testing.T
	strace string
	head   *site
	mode   string
	nth    int
	url    string       // where it finds the head
	calls  atomic.Int32 // of the head
}

// listen lets joins find the head at an address that passes each call on from another address: the head bounds the
// attempts of an address.
func (k *killedJoin) listen() {
	ln := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(k.t)
	k.t.Cleanup(func() { _ = ln.Close() })
	k.url = "https://" + ln.Addr().String()
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			from := net.IPv4(127, 0, 1, byte(k.calls.Add(1)))
			out, err := k.head.dial(context.Background(), from.String(), 0, k.head.ports[3])
			if err != nil {
				_ = in.Close()
				continue
			}
			go func() {
				_, _ = io.Copy(out, in)
				_ = out.Close()
			}()
			go func() {
				_, _ = io.Copy(in, out)
				_ = in.Close()
			}()
		}
	}()
}

// token returns a new token.
func (k *killedJoin) token() control.Token {
	k.t.Helper()
	token := k.head.token(control.TokenRequest{For: "head2", Roles: []string{"head"}})
	token.URL = k.url
	return token
}

// killed kills a join, checks what it leaves, and joins again. It returns false if the join has fewer calls.
func (k *killedJoin) killed() bool {
	k.t.Helper()
	data := filepath.Join(k.t.TempDir(), "data")
	before := ""
	if k.mode == "replace" {
		before = testkit.Value(pki.Init(data))(k.t)
	}
	token := k.token()
	const calls = "fsync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
	cmd := exec.Command(k.strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace="+calls,
		"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, k.nth),
		os.Args[0], data, token.URL, token.Token, k.mode)
	cmd.Env = append(os.Environ(), joinerName+"=1")
	out, err := cmd.CombinedOutput()
	e, failed := errors.AsType[*exec.ExitError](err)
	if failed && !e.Sys().(syscall.WaitStatus).Signaled() {
		k.t.Fatalf("call %d: %v: %s", k.nth, err, out)
	}
	k.check(data, before, token)
	return failed
}

// check checks what a killed join has left.
func (k *killedJoin) check(data, before string, token control.Token) {
	k.t.Helper()
	s := &site{t: k.t, data: data}
	if err := pki.Check(data); err == nil {
		id := testkit.Value(pki.Open(data))(k.t).Identity()
		if id.ID != before && (id.Name != "head2" || !id.Is(cluster.RoleHead)) {
			k.t.Errorf("killed at call %d it is %+v", k.nth, id)
		}
	} else if !errors.Is(err, pki.ErrNotInitialised) || before != "" {
		k.t.Errorf("killed at call %d: %v", k.nth, err)
	}
	existing := pki.KeepIdentity
	if k.mode == "replace" {
		existing = pki.ReplaceIdentity
	}
	who, err := s.join(token, "head2", existing)
	if err != nil && strings.Contains(err.Error(), "the token was used already") {
		token = k.token()
		who, err = s.join(token, "head2", existing)
	}
	if err != nil {
		k.t.Errorf("killed at call %d, the same line again: %v", k.nth, err)
		return
	}
	c := testkit.Value(pki.Open(data))(k.t)
	if c.Identity().ID != who.ID || c.Authority() == nil || k.head.server("head2").ID != who.ID {
		k.t.Errorf("killed at call %d, then joined as %+v: it is %+v, and the head has %+v", k.nth, who, c.Identity(),
			k.head.server("head2"))
	}
	for _, left := range []string{"joining", ".tmp-*", "*/.tmp-*", "*/*/.tmp-*"} {
		if found, _ := filepath.Glob(filepath.Join(data, left)); len(found) > 0 {
			k.t.Errorf("killed at call %d, left: %q", k.nth, found)
		}
	}
	_, err = k.head.client().ChangeServer(k.t.Context(), "head2", control.ServerChange{Do: "remove"})
	testkit.Must(k.t, err)
}
