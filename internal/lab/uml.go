package lab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"dim/internal/lab/netns"
)

// UMLSpec describes a User Mode Linux guest: a real Linux kernel, with a real NFS client, as an ordinary process. Its
// init is the program Init, which must understand the kernel parameters agent.addr, agent.if and agent.modules (see
// e2e/agentd).
type UMLSpec struct {
	Name string
	Net  *netns.Net
	Dir  string            // an existing directory, for the guest's root and the log
	Init string            // path of a static program
	Put  map[string]string // further files for the guest's root: path in the root → path on this machine
	Addr netip.Prefix
	MB   int // memory in MB; 0: 512

	// MACs are the hardware addresses of its cards vec0, vec1 and so on, which are on one network. Without any it has
	// vec0, with a random one.
	MACs []string
}

// UML is a running User Mode Linux guest. Agent calls its init.
type UML struct {
	Serial
	Agent *rpc.Client
	p     *process
}

// StartUML boots a guest and waits until its init serves calls.
func StartUML(ctx context.Context, s UMLSpec) (*UML, error) {
	root := filepath.Join(s.Dir, s.Name)
	if err := umlRoot(root, s); err != nil {
		return nil, fmt.Errorf("start guest %s: %w", s.Name, err)
	}
	cards, err := s.cards()
	if err != nil {
		return nil, err
	}
	// ctx bounds the boot, not the lifetime.
	cmd := s.Net.Command(context.WithoutCancel(ctx), "env", "TMPDIR=/dev/shm",
		"linux.uml", fmt.Sprintf("mem=%dM", cmp.Or(s.MB, 512)), "umid="+s.Net.Name+s.Name,
		"rootfstype=hostfs", "rootflags="+root, "rw", "init=/init",
		"con=null", "con0=null,fd:1", "con1=null", "ssl=null", "quiet",
		"agent.if=vec0", "agent.addr="+s.Addr.String(), "agent.modules=/modules")
	cmd.Args = append(cmd.Args, cards...)
	log, err := os.Create(filepath.Join(s.Dir, s.Name+".log"))
	if err != nil {
		return nil, err
	}
	// User Mode Linux consists of many processes. In a PID namespace of their own they all end with the first one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	u := &UML{}
	u.Serial.start(time.Now())
	out := io.MultiWriter(log, &u.Serial)
	cmd.Stdout, cmd.Stderr = out, out
	u.p = startProcess(cmd)
	go func() {
		<-u.p.done
		u.Serial.end()
		log.Close()
	}()
	if _, err := u.WaitFor(ctx, regexp.MustCompile("agentd: ready")); err != nil {
		u.Kill()
		return nil, err
	}
	conn, err := s.Net.DialContext(ctx, "tcp", s.Addr.Addr().String()+":7000")
	if err != nil {
		u.Kill()
		return nil, err
	}
	u.Agent = rpc.NewClient(conn)
	return u, nil
}

// cards makes the taps of the guest's cards, and returns the parameters of its kernel about them.
func (s *UMLSpec) cards() (params []string, err error) {
	for i := range max(1, len(s.MACs)) {
		name := s.Name
		if i > 0 {
			name += fmt.Sprint("-", i)
		}
		tap, err := s.Net.Tap(name)
		if err != nil {
			return nil, err
		}
		card := fmt.Sprintf("vec%d:transport=tap,ifname=%s,depth=128,gro=1", i, tap)
		if i < len(s.MACs) {
			card += ",mac=" + s.MACs[i]
		}
		params = append(params, card)
	}
	return params, nil
}

// Kill ends the guest as a power cut does, and waits until it has ended.
func (u *UML) Kill() {
	if u.Agent != nil {
		_ = u.Agent.Close()
	}
	u.p.end(syscall.SIGKILL)
}

// umlModules are the kernel modules of an NFS client, in Debian's user-mode-linux package.
func umlModules() []string {
	return []string{
		"net/sunrpc/sunrpc.ko", "fs/nfs_common/grace.ko", "fs/lockd/lockd.ko", "fs/netfs/netfs.ko",
		"fs/fscache/fscache.ko",
		"fs/nfs/nfs.ko", "fs/nfs_common/nfs_acl.ko", "fs/nfs/nfsv3.ko", "fs/overlayfs/overlay.ko",
	}
}

// umlRoot makes the guest's root directory, which the guest may change.
func umlRoot(root string, s UMLSpec) error {
	for _, dir := range []string{"proc", "sys", "dev", "run", "mnt", "tmp", "bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	put := map[string]string{"init": s.Init}
	for to, from := range s.Put {
		put[to] = from
	}
	kernels, err := filepath.Glob("/usr/lib/uml/modules/*/kernel")
	if err != nil || len(kernels) == 0 {
		return fmt.Errorf("no kernel modules in /usr/lib/uml/modules: package user-mode-linux is not installed")
	}
	for _, m := range umlModules() {
		if from := filepath.Join(kernels[len(kernels)-1], m); exists(from) { // some kernels have it built in
			put["modules/kernel/"+m] = from
		}
	}
	for to, from := range put {
		if err := copyFile(filepath.Join(root, to), from); err != nil {
			return err
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
