// Package agent performs file operations inside a test guest, on request of the test outside over net/rpc. A
// test can hold a file open in a guest's kernel, do something to the server, and look at the file again. It is
// for tests only.
package agent

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Agent is the receiver of all calls. Open files, mappings and processes are named by small numbers.
type Agent struct {
	mu    sync.Mutex
	next  int
	files map[int]*os.File
	maps  map[int][]byte
	procs map[int]*exec.Cmd
}

// New returns an Agent with nothing open.
func New() *Agent {
	return &Agent{files: map[int]*os.File{}, maps: map[int][]byte{}, procs: map[int]*exec.Cmd{}}
}

// None stands for no argument or no result.
type None struct{}

// MountArgs are the operands of mount(2).
type MountArgs struct{ Source, Dir, Type, Options string }

// Mount makes Dir and mounts there.
func (a *Agent) Mount(m MountArgs, _ *None) error {
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.Source, m.Dir, m.Type, 0, m.Options); err != nil {
		return fmt.Errorf("mount %s: %w", m.Source, err)
	}
	return nil
}

// Enter makes the file system that is mounted on dir the root of the agent and of the processes that it starts
// afterwards, as switch_root(8) does.
func (a *Agent) Enter(dir string, _ *None) error {
	for _, m := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
		if err := unix.Mount(m, dir+m, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", m, err)
		}
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(dir, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s: %w", dir, err)
	}
	return unix.Chroot(".")
}

// Unmount unmounts dir.
func (a *Agent) Unmount(dir string, _ *None) error { return unix.Unmount(dir, 0) }

// DropCaches makes the kernel forget all clean pages, names and inodes.
func (a *Agent) DropCaches(_ None, _ *None) error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// OpenArgs are the operands of open(2).
type OpenArgs struct {
	Path  string
	Flags int
	Mode  uint32
}

// Open opens a file and returns its number.
func (a *Agent) Open(o OpenArgs, id *int) error {
	f, err := os.OpenFile(o.Path, o.Flags, os.FileMode(o.Mode))
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	a.files[a.next], *id = f, a.next
	return nil
}

func (a *Agent) file(id int) (*os.File, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.files[id]
	if f == nil {
		return nil, fmt.Errorf("no file %d", id)
	}
	return f, nil
}

// RangeArgs name a range of an open file or mapping.
type RangeArgs struct {
	ID     int
	Offset int64
	Length int
}

// ReadAt reads up to Length bytes.
func (a *Agent) ReadAt(r RangeArgs, data *[]byte) error {
	f, err := a.file(r.ID)
	if err != nil {
		return err
	}
	buf := make([]byte, r.Length)
	n, err := unix.Pread(int(f.Fd()), buf, r.Offset)
	if err != nil {
		return err
	}
	*data = buf[:n]
	return nil
}

// WriteArgs are the operands of pwrite(2).
type WriteArgs struct {
	ID     int
	Offset int64
	Data   []byte
	Sync   int // 1: fsync before the call returns
}

// WriteAt writes Data.
func (a *Agent) WriteAt(w WriteArgs, n *int) (err error) {
	f, err := a.file(w.ID)
	if err != nil {
		return err
	}
	if *n, err = f.WriteAt(w.Data, w.Offset); err == nil && w.Sync == 1 {
		err = f.Sync()
	}
	return err
}

// Close closes a file.
func (a *Agent) Close(id int, _ *None) error {
	f, err := a.file(id)
	if err != nil {
		return err
	}
	return f.Close()
}

// Map maps a range of an open file shared and read-only, and returns the mapping's number.
func (a *Agent) Map(r RangeArgs, id *int) error {
	f, err := a.file(r.ID)
	if err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), r.Offset, r.Length, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	a.maps[a.next], *id = m, a.next
	return nil
}

// ReadMap copies a range out of a mapping.
func (a *Agent) ReadMap(r RangeArgs, data *[]byte) error {
	a.mu.Lock()
	m := a.maps[r.ID]
	a.mu.Unlock()
	if int64(len(m)) < r.Offset+int64(r.Length) {
		return fmt.Errorf("no such range in mapping %d", r.ID)
	}
	*data = append([]byte{}, m[r.Offset:r.Offset+int64(r.Length)]...)
	return nil
}

// Stat is the result of lstat(2).
type Stat struct {
	Ino, Nlink     uint64
	Mode, UID, GID uint32
	Size           int64
	Mtime, Ctime   int64 // nanoseconds
	Exists         bool
	Major, Minor   uint32
	Target         string
	Blocks         int64 // of 512 bytes
}

// Stat returns the status of a path. A missing path is no error.
func (a *Agent) Stat(path string, s *Stat) error {
	var st syscall.Stat_t
	err := syscall.Lstat(path, &st)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	*s = Stat{
		Exists: true, Ino: st.Ino, Nlink: uint64(st.Nlink), Mode: st.Mode, UID: st.Uid, GID: st.Gid, Size: st.Size,
		Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev),
		Blocks: st.Blocks,
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFLNK {
		s.Target, err = os.Readlink(path)
	}
	return err
}

// ReadFile returns a whole file.
func (a *Agent) ReadFile(path string, data *[]byte) (err error) {
	*data, err = os.ReadFile(path)
	return err
}

// WriteFileArgs are what WriteFile takes.
type WriteFileArgs struct {
	Path string
	Data []byte
	Mode uint32
}

// WriteFile replaces a file's content and syncs it.
func (a *Agent) WriteFile(w WriteFileArgs, _ *None) error {
	f, err := os.OpenFile(w.Path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, os.FileMode(w.Mode))
	if err != nil {
		return err
	}
	_, err = f.Write(w.Data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// ReadDir lists a directory.
func (a *Agent) ReadDir(path string, names *[]string) error {
	entries, err := os.ReadDir(path)
	for _, e := range entries {
		*names = append(*names, e.Name())
	}
	return err
}

// PathArgs name one or two paths.
type PathArgs struct{ Path, To string }

// Remove removes a file or an empty directory.
func (a *Agent) Remove(p PathArgs, _ *None) error { return os.Remove(p.Path) }

// Rename renames Path to To.
func (a *Agent) Rename(p PathArgs, _ *None) error { return os.Rename(p.Path, p.To) }

// Mkdir makes a directory.
func (a *Agent) Mkdir(p PathArgs, _ *None) error { return os.Mkdir(p.Path, 0o755) }

// RunArgs are a command and its bound.
type RunArgs struct {
	Argv    []string
	Dir     string
	Timeout time.Duration
	User    uint32 // the user who runs it
}

func (r *RunArgs) command() *exec.Cmd {
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	cmd.Dir = r.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: r.User, Gid: r.User}}
	return cmd
}

// Output is what a command printed, and how it ended (-1: by a signal or the bound).
type Output struct {
	Text string
	Exit int
}

// Run runs a command to its end.
func (a *Agent) Run(r RunArgs, out *Output) error {
	cmd := r.command()
	timer := time.AfterFunc(r.Timeout, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	text, err := cmd.CombinedOutput()
	out.Text = string(text)
	if cmd.ProcessState == nil {
		return err
	}
	out.Exit = cmd.ProcessState.ExitCode()
	return nil
}

// Start starts a command and returns its number.
func (a *Agent) Start(r RunArgs, id *int) error {
	cmd := r.command()
	if err := cmd.Start(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	a.procs[a.next], *id = cmd, a.next
	return nil
}

// Finish sends a started command SIGTERM and returns how it ended: its exit code, or minus the number of the signal.
func (a *Agent) Finish(id int, code *int) error {
	a.mu.Lock()
	cmd := a.procs[id]
	a.mu.Unlock()
	if cmd == nil {
		return fmt.Errorf("no process %d", id)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if *code = status.ExitStatus(); status.Signaled() {
		*code = -int(status.Signal())
	}
	return nil
}

// PowerOff stops the machine.
func (a *Agent) PowerOff(_ None, _ *None) error {
	go func() {
		time.Sleep(100 * time.Millisecond) // time for the reply
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	return nil
}
