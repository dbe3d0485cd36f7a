package nodeinit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Times of the process that stays.
const (
	callPatience = 75 * time.Second // the server answers earlier, news or not
	checkEvery   = 10 * time.Second // whether processes that use replaced files have ended
	mountsSettle = time.Second      // one change of mounts seldom comes alone
	readyIn      = 10 * time.Second
)

// resident is the process that stays on the node when its init has started.
//
// Its root and working directory are those of the initramfs, which is empty by then, and its program has no name any more: nothing of the
// replica is needed to run it, and nothing can be replaced under it. It reaches the replica through a mount of its own of
// the same file system, on which nothing else is mounted.
type resident struct {
	at        netip.AddrPort
	root      int    // the replica's root
	proc      int    // /proc
	mountinfo int    // of process 1
	device    device // of the replica
	scratch   []byte
	state
}

// device is a file system's number, as mountinfo and as maps have it.
type device struct{ decimal, hex string }

// Stay is the whole of the process that stays; it returns only an error, and only when it cannot begin. args are the
// server's address, up to where the replica's state is known, the directory that the replica is mounted on, and /proc; a directory
// may be given as # and the number of an open file. When it is ready it says so on its output.
func Stay(args []string) (err error) {
	debug.SetGCPercent(20) // it shall be small rather than fast
	r, err := newResident(args)
	if err != nil {
		return err
	}
	defer func() {
		if fault := recover(); fault != nil {
			err = r.again(fault)
		}
	}()
	r.settle()
	r.run()
	return nil
}

func newResident(args []string) (*resident, error) {
	if len(args) != 4 {
		return nil, fmt.Errorf("want 4 arguments, not %d", len(args))
	}
	r := &resident{state: state{seen: args[1]}, scratch: make([]byte, 16<<10)}
	var err error
	if r.at, err = netip.ParseAddrPort(args[0]); err != nil {
		return nil, err
	}
	if r.root, err = openDir(args[2], unix.OPEN_TREE_CLONE); err != nil {
		return nil, fmt.Errorf("open %s: %w", args[2], err)
	}
	if r.proc, err = openDir(args[3], 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", args[3], err)
	}
	if r.mountinfo, err = unix.Openat(r.proc, "1/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the table of mounts: %w", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(r.root, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", args[2], err)
	}
	r.device = device{fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor), fmt.Sprintf("%02x:%02x", st.Dev_major, st.Dev_minor)}
	r.boot = strings.TrimSpace(r.readProc("sys/kernel/random/boot_id"))
	return r, nil
}

// openDir opens a directory, as a mount of its own if clone says so: then what is mounted on directories below does not show.
func openDir(name string, clone uint) (int, error) {
	if number, ok := strings.CutPrefix(name, "#"); ok {
		return strconv.Atoi(number)
	}
	if clone != 0 {
		return unix.OpenTree(unix.AT_FDCWD, name, clone|unix.OPEN_TREE_CLOEXEC)
	}
	return unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// settle says that the process is ready, and lets go of who waited for it. The kernel shall not choose it when memory is short.
func (r *resident) settle() {
	_, _ = unix.Write(1, []byte("ready\n"))
	_ = unix.Dup3(0, 1, 0)
	r.writeProc("self/comm", "dim-push")
	r.writeProc("self/oom_score_adj", "-1000")
}

// again runs the program anew after a panic: what it knows is in its arguments, and the server has the rest.
func (r *resident) again(fault any) error {
	for _, fd := range []int{r.root, r.proc} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	if err := unix.Fchdir(r.proc); err != nil {
		return err
	}
	time.Sleep(relapse)
	err := syscall.Exec("self/exe", []string{
		ResidentName, r.at.String(), r.seen, fmt.Sprintf("#%d", r.root), fmt.Sprintf("#%d", r.proc),
	}, os.Environ())
	return fmt.Errorf("begin anew after %v: %w", fault, err)
}

// run calls for ever. A server that does not answer is asked again at growing intervals; so is one that another process of the node has called: any
// user's can, and must not end this one.
func (r *resident) run() {
	pause := backoff{next: firstPause, most: mostPause, rand: newRand(rand.Uint64(), []byte(r.boot))}
	first := pause
	r.findStale()
	for {
		r.findMounts()
		if r.hear() != nil {
			time.Sleep(pause.take())
			continue
		}
		pause = backoff{next: first.next, most: first.most, rand: first.rand}
	}
}

// hear makes one call: it ends when the server answers, or when there is something new to say. It looks again at what the
// answer names, as it comes.
func (r *resident) hear() error {
	debug.FreeOSMemory() // what the tables took; it may be days until they are read again
	r.memory = r.size()
	s, err := send(r.at, hearRequest(r.at, r.call()), time.Now().Add(askPatience))
	if err != nil {
		return err
	}
	defer s.close()
	var a answer
	var line []byte
	looked := 0
	for deadline := time.Now().Add(callPatience); ; {
		if len(line) == 0 && !a.begun {
			if again, err := r.await(s, deadline); again || err != nil {
				return err
			}
		}
		n, err := s.read(r.scratch, time.Now().Add(askPatience))
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		for _, c := range r.scratch[:n] {
			if c != '\n' {
				if line = append(line, c); len(line) > 4*maxPath+maxDetail {
					return errAnswer
				}
				continue
			}
			dir, look, err := a.line(string(line))
			if err != nil {
				return err
			}
			if line = line[:0]; look {
				r.look(dir)
				looked++
			}
		}
	}
	if !a.ended {
		return errAnswer
	}
	r.seen = a.now
	if looked > 0 {
		r.findStale()
	}
	return nil
}

// await waits for the answer. It reports that the server is to be called again when the node has something new to say.
func (r *resident) await(s *stream, deadline time.Time) (again bool, err error) {
	for {
		wait := time.Until(deadline)
		if wait <= 0 {
			return false, os.ErrDeadlineExceeded
		}
		if len(r.stale) > 0 {
			wait = min(wait, checkEvery)
		}
		ready := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(r.mountinfo), Events: unix.POLLPRI}}
		n, err := unix.Poll(ready, int(wait.Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n > 0 && ready[0].Revents != 0:
			return false, err
		case n > 0:
			time.Sleep(mountsSettle)
			if r.findMounts() {
				return true, nil
			}
		case len(r.stale) > 0 && r.findStale():
			return true, nil
		}
	}
}

// look makes the kernel ask the server for a directory's attributes. When they have changed, all that it knows of the names in it is
// asked anew when it is next needed. A directory that is no more, or cannot be reached, is looked at through the one above.
func (r *resident) look(dir string) {
	if dir == "" {
		dir = "."
	}
	fd, err := r.open(dir, unix.O_DIRECTORY)
	if err != nil {
		return
	}
	var st unix.Statx_t
	_ = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	unix.Close(fd)
}

// open opens a path of the replica for looking at, following no links.
func (r *resident) open(path string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(r.root, path, &how)
		if err == nil || err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// Remain starts the process that stays, and waits until it has opened what the handover will move away.
func (k *kernel) Remain(at netip.AddrPort, seen string) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer null.Close()
		err = startSmall([]string{ResidentName, at.String(), seen, newRoot, "/proc"}, null.Fd(), uintptr(pipe[1]), null.Fd())
	}
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	s := &stream{pipe[0]}
	if err := s.await(unix.POLLIN, time.Now().Add(readyIn)); err != nil {
		return err
	}
	said := make([]byte, maxDetail)
	n, err := unix.Read(pipe[0], said)
	if text := strings.TrimSpace(string(said[:max(n, 0)])); err == nil && text != "ready" {
		err = errors.New(text)
	}
	return err
}

// startSmall starts this program so that it takes little memory: Go's runtime has tables and stacks for each processor that it may use (2 MB for 64),
// and where huge pages are given unasked, as in Debian, its heap and tables take some of 2 MB each.
func startSmall(args []string, files ...uintptr) error {
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) // inherited; a kernel without huge pages refuses it
	defer unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	_, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{
		Files: files, Env: []string{"GOMAXPROCS=1"}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	return err
}
