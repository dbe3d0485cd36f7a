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

// Times of the resident process.
const (
	answerTimeout = 75 * time.Second // the server answers earlier, even without a change
	staleInterval = 10 * time.Second // between checks whether processes that use replaced files have ended
	mountsDelay   = time.Second      // after a change of mounts, which seldom comes alone
	startTimeout  = 10 * time.Second
)

// resident is the process that stays on the node when its init has started.
//
// Its root is that of the initramfs, which is empty by then, its working directory is /proc, and its program has no
// name any more. Therefore it needs nothing of the replica, and a switch replaces nothing under it. It reaches the
// replica through its own mount of the same file system, on which nothing else is mounted.
type resident struct {
	server    netip.AddrPort
	root      int    // the replica's root
	proc      int    // /proc
	mountinfo int    // of process 1
	device    device // of the replica
	units     unitWatch
	scratch   []byte
	status
}

// device is a file system's number in the forms of mountinfo and of maps.
type device struct{ decimal, hex string }

// RunResident is dim-init as the resident process. It returns only if it cannot start. args are
//
//  1. the server's address,
//  2. the state of the replica for which the node has looked,
//  3. the directory on which the replica is mounted,
//  4. /proc,
//  5. the state of the replica of which the service manager has read its units. Without it, the manager does not run
//     yet, and will read those of 2 or of a later state.
//
// A directory may be given as "#" and the number of an open file. When it is ready, the process prints that.
func RunResident(args []string) (err error) {
	debug.SetGCPercent(20) // little memory matters more than speed
	r, err := newResident(args)
	if err != nil {
		return err
	}
	defer func() {
		if fault := recover(); fault != nil {
			err = r.restart(fault)
		}
	}()
	r.detach()
	r.run()
	return nil
}

func newResident(args []string) (*resident, error) {
	if len(args) != 4 && len(args) != 5 {
		return nil, fmt.Errorf("want 4 or 5 arguments, not %d", len(args))
	}
	r := &resident{
		status: status{seen: args[1], unitsOf: args[1]}, units: newUnitWatch(), scratch: make([]byte, 16<<10),
	}
	if len(args) == 5 {
		r.unitsOf = args[4]
	}
	var err error
	if r.server, err = netip.ParseAddrPort(args[0]); err != nil {
		return nil, err
	}
	if r.root, err = openDir(args[2], unix.OPEN_TREE_CLONE); err != nil {
		return nil, fmt.Errorf("open %s: %w", args[2], err)
	}
	if r.proc, err = openDir(args[3], 0); err != nil {
		return nil, fmt.Errorf("open %s: %w", args[3], err)
	}
	if err = unix.Fchdir(r.proc); err != nil {
		return nil, fmt.Errorf("change the working directory to %s: %w", args[3], err)
	}
	if r.mountinfo, err = unix.Openat(r.proc, "1/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the table of mounts: %w", err)
	}
	var st unix.Statx_t
	if err := unix.Statx(r.root, "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", args[2], err)
	}
	r.device = device{
		fmt.Sprintf("%d:%d", st.Dev_major, st.Dev_minor), fmt.Sprintf("%02x:%02x", st.Dev_major, st.Dev_minor),
	}
	r.boot = strings.TrimSpace(r.readProc("sys/kernel/random/boot_id"))
	return r, nil
}

// openDir opens a directory. With unix.OPEN_TREE_CLONE it opens a new mount of its file system, without the mounts
// below.
func openDir(name string, clone uint) (int, error) {
	if number, ok := strings.CutPrefix(name, "#"); ok {
		return strconv.Atoi(number)
	}
	if clone != 0 {
		return unix.OpenTree(unix.AT_FDCWD, name, clone|unix.OPEN_TREE_CLOEXEC)
	}
	return unix.Open(name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// detach reports that the process is ready and closes the pipe to the process that waits for that. It also keeps the
// kernel from choosing this process when memory runs out.
func (r *resident) detach() {
	_, _ = unix.Write(1, []byte("ready\n"))
	_ = unix.Dup3(0, 1, 0)
	r.writeProc("self/comm", "dim-push")
	r.writeProc("self/oom_score_adj", "-1000")
}

// restart executes the program anew after a panic. Its state is in the arguments, and the server has the rest.
func (r *resident) restart(fault any) error {
	for _, fd := range []int{r.root, r.proc} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return err
		}
	}
	time.Sleep(restartDelay)
	err := syscall.Exec("self/exe", []string{
		ResidentName, r.server.String(), r.seen, fmt.Sprintf("#%d", r.root), fmt.Sprintf("#%d", r.proc),
		r.unitsOf,
	}, os.Environ())
	return fmt.Errorf("restart after %v: %w", fault, err)
}

// run makes calls for ever. After a call that failed it waits, for growing intervals. That includes a call that was
// superseded by one of another process of the node: any user can make one, and must not be able to end this process.
func (r *resident) run() {
	random := newRand(rand.Uint64(), []byte(r.boot))
	first := backoff{interval: shortestRetry, longest: longestRetry, rand: random}
	pause := first
	r.updateStale()
	for {
		r.updateMounts()
		r.units.find()
		if r.call() != nil {
			time.Sleep(pause.next())
			continue
		}
		pause = first
	}
}

// call makes one call. It ends when the server has answered or when there is something new to report.
func (r *resident) call() error {
	debug.FreeOSMemory() // of the tables, which may not be read again for days
	r.memory = r.residentMemory()
	s, err := send(r.server, pushRequest(r.server, r.encode()), time.Now().Add(requestTimeout))
	if err != nil {
		return err
	}
	defer s.close()
	if changed, err := r.await(s, time.Now().Add(answerTimeout)); changed || err != nil {
		return err
	}
	return r.readAnswer(s)
}

// await waits until an answer begins. changed reports that there is something new to report before.
func (r *resident) await(s *stream, deadline time.Time) (changed bool, err error) {
	for {
		wait := time.Until(deadline)
		if wait <= 0 {
			return false, os.ErrDeadlineExceeded
		}
		if len(r.stale) > 0 {
			wait = min(wait, staleInterval)
		}
		ready := []unix.PollFd{
			{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(r.mountinfo), Events: unix.POLLPRI},
			{Fd: int32(r.units.fd), Events: unix.POLLIN},
		}
		n, err := unix.Poll(ready, int(wait.Milliseconds())+1)
		unitsOf := r.unitsOf
		if n > 0 && ready[2].Revents != 0 && r.units.reads(r.scratch) {
			r.unitsOf = r.seen
		}
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || n > 0 && ready[0].Revents != 0:
			return false, err
		case r.unitsOf != unitsOf:
			return true, nil
		case n > 0 && ready[1].Revents != 0:
			time.Sleep(mountsDelay)
			if r.updateMounts() {
				return true, nil
			}
		case len(r.stale) > 0 && r.updateStale():
			return true, nil
		}
	}
}

// readAnswer reads an answer and revalidates each directory that it names, as soon as its line has arrived.
func (r *resident) readAnswer(s *stream) error {
	var a answerParser
	var line []byte
	revalidated := false
	for {
		n, err := s.read(r.scratch, time.Now().Add(requestTimeout))
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		for _, c := range r.scratch[:n] {
			if c != '\n' {
				if line = append(line, c); len(line) > 4*maxPath+maxDetail {
					return errMalformed
				}
				continue
			}
			dir, isDir, err := a.line(string(line))
			if err != nil {
				return err
			}
			if line = line[:0]; isDir {
				r.revalidate(dir)
				revalidated = true
			}
		}
	}
	if !a.ended {
		return errMalformed
	}
	// What systemd has begun to read before this moment may be older than the new state.
	r.units.reads(r.scratch)
	r.seen = a.now
	if revalidated {
		r.updateStale()
	}
	return nil
}

// revalidate makes the kernel ask the server for a directory's attributes. If they have changed, the kernel revalidates
// every name in the directory when it next needs it. A directory that does not exist any more, or cannot be reached,
// needs nothing: its parent is revalidated, too.
func (r *resident) revalidate(dir string) {
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

// open opens a path of the replica with O_PATH. It follows no links.
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

// StartResident starts the resident process and waits until it has opened what the handover will move away.
func (k *kernel) StartResident(server netip.AddrPort, state string) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer null.Close()
		args := []string{ResidentName, server.String(), state, newRoot, "/proc"}
		err = startSmall(args, null.Fd(), uintptr(pipe[1]), null.Fd())
	}
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	s := &stream{pipe[0]}
	if err := s.await(unix.POLLIN, time.Now().Add(startTimeout)); err != nil {
		return err
	}
	output := make([]byte, maxDetail)
	n, err := unix.Read(pipe[0], output)
	if text := strings.TrimSpace(string(output[:max(n, 0)])); err == nil && text != "ready" {
		err = errors.New(text)
	}
	return err
}

// startSmall starts this program so that it takes little memory. Go's runtime has tables and stacks for each processor
// that it may use (2 MB for 64). Where huge pages are given unasked, as in Debian, its heap and tables take some of 2
// MB each.
func startSmall(args []string, files ...uintptr) error {
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) // inherited; a kernel without huge pages refuses it
	defer unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	_, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{
		Files: files, Env: []string{"GOMAXPROCS=1"}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	return err
}
