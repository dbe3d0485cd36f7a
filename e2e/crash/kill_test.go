package crash

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dim/internal/layers"
	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// asServer in the environment makes the test binary a server of the replicas in the directory that it names.
const asServer = "DIM_CRASH_SERVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asServer); dir != "" {
		if err := serve(dir, os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// export is the one tree that a server serves.
type export struct{ r *replica.Replica }

func (e export) Client(nfs.Peer) (nfs.Client, error)           { return e, nil }
func (e export) Current() bool                                 { return true }
func (e export) Mount(context.Context, string) (vfs.FS, error) { return e.r, nil }
func (e export) Find(vfs.Handle) (nfs.Export, error)           { return nfs.Export{FS: e.r}, nil }
func (e export) Paths() []string                               { return []string{"/"} }

// serve serves NFS until its input ends. It prints its address first. Then it reads commands, one a line, and
// prints each when it is done: a move, or the stamp of a snapshot to restore.
func serve(dir, version, keep string) error {
	s, err := store.Open(filepath.Join(dir, "store"), store.Options{})
	if err != nil {
		return err
	}
	c := &cluster{store: s}
	if c.keep, err = strconv.Atoi(keep); err != nil {
		return err
	}
	if c.versions, err = s.Versions("compute"); err != nil {
		return err
	}
	v, err := strconv.Atoi(version)
	if err != nil {
		return err
	}
	set, r, err := c.open(filepath.Join(dir, "replicas"), replica.Synced, v)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := oncrpc.NewServer(oncrpc.Options{}, nfs.New(export{r}, nfs.Options{}).Programs()...)
	go srv.Serve(context.Background(), ln)
	fmt.Println(ln.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if to, bad := parseMove(in.Text()); bad == nil {
			err = c.to(set, r, to)
		} else {
			_, err = layers.Of(r).RestoreSnapshot(layers.RestoreSnapshotOptions{To: in.Text()})
		}
		if err != nil {
			return err
		}
		fmt.Println(in.Text())
	}
	return nil
}

// server is a running server process.
type server struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

func (c *cluster) startServer(t *testing.T, dir string, version int) *server {
	t.Helper()
	s := &server{cmd: exec.Command(os.Args[0], strconv.Itoa(version), strconv.Itoa(c.keep))}
	s.cmd.Env = append(os.Environ(), asServer+"="+dir)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	testkit.Must(t, err)
	s.in, err = s.cmd.StdinPipe()
	testkit.Must(t, err)
	testkit.Must(t, s.cmd.Start())
	t.Cleanup(s.kill)
	s.out = bufio.NewReader(out)
	line, err := s.out.ReadString('\n')
	testkit.Must(t, err)
	s.addr = strings.TrimSpace(line)
	return s
}

// kill ends the process at once. It may be called twice.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// to switches the server's replica.
func (s *server) to(m move) error { return s.do(m.String()) }

// do sends a command to the server and waits until it is done.
func (s *server) do(what string) error {
	if _, err := fmt.Fprintln(s.in, what); err != nil {
		return err
	}
	line, err := s.out.ReadString('\n')
	if err == nil && strings.TrimSpace(line) != what {
		err = errors.New("the server said " + line)
	}
	return err
}

func (s *server) tree() (*nfsclient.Tree, func(), error) {
	c, err := nfsclient.Dial(context.Background(), s.addr)
	if err != nil {
		return nil, nil, err
	}
	tree, err := c.Tree("/")
	return tree, func() { c.Close() }, err
}

func TestAcknowledgedIsThereWhenTheServerIsKilled(t *testing.T) {
	dir := t.TempDir()
	c := newCluster(t, dir)
	set, r, err := c.open(filepath.Join(dir, "replicas"), replica.Synced, 0)
	testkit.Must(t, err)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	all, now := newWorkers(t, r, seed), shown{}
	testkit.Must(t, set.Close())
	for i := 0; i < rounds(6) && !t.Failed(); i++ {
		s := c.startServer(t, dir, now.version)
		m := newSwitcher(now, s.to)
		killUnderLoad(t, s, all, m, func() {
			target := random.IntN(40)
			for acked := 0; acked < target && !t.Failed(); acked, _ = all[0].span() {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
		})
		now = checkAfterKill(t, c, dir, all, m, random)
	}
}

// killUnderLoad kills s while the workers make changes, when wait returns.
func killUnderLoad(t *testing.T, s *server, all []*worker, m *switcher, wait func()) {
	var killed atomic.Bool
	var wg sync.WaitGroup
	run := func(work func(fs vfs.FS, more func() bool) error) {
		tree, end, err := s.tree()
		testkit.Must(t, err)
		wg.Go(func() {
			defer end()
			if err := work(tree, func() bool { return true }); !killed.Load() {
				t.Error(err)
			}
		})
	}
	for _, w := range all {
		run(w.work)
	}
	run(m.work)
	wait()
	killed.Store(true)
	s.kill()
	wg.Wait()
}

// checkAfterKill compares the replica with the acknowledged calls of the workers, which continue from there.
func checkAfterKill(t *testing.T, c *cluster, dir string, all []*worker, m *switcher, random *rand.Rand) shown {
	lowM, highM := m.span()
	version := m.version([]int{lowM, highM}[random.IntN(2)])
	set, r, err := c.open(filepath.Join(dir, "replicas"), replica.Synced, version)
	testkit.Must(t, err)
	defer set.Close()
	for i, w := range all {
		low, high := w.span()
		is, err := w.check(r, low, high)
		if err != nil {
			t.Errorf("after kill -9: %v", err)
			return shown{}
		}
		all[i] = newWorker(w.dir, w.rand.Uint64(), is)
	}
	now, err := m.check(r, version, lowM, highM)
	if err != nil {
		t.Errorf("after kill -9: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "replicas/n01/compute/work")); err != nil &&
		!errors.Is(err, os.ErrNotExist) || len(left) > 0 {
		t.Errorf("left in work/: %v, %v", left, err)
	}
	testkit.Must(t, c.store.Check(t.Context(), store.CheckObserver{Problem: func(p store.Problem) {
		t.Errorf("store: %v", p)
	}}))
	return now
}
