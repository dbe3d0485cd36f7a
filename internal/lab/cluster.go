package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// ClusterSpec describes a cluster to start.
type ClusterSpec struct {
	Name        string       // of the network namespace
	Dir         string       // directory for the data directory, keys and logs
	Bin         string       // directory of dim and dim-init-ARCH
	Master      string       // directory of the master, which the server sees as MasterAt
	MasterAt    string       // path of the master in the description
	Description string       // path of the XML file
	Server      string       // name of the server in the description
	Address     netip.Prefix // its address
}

// Cluster is one server process in a network namespace, and ssh to its nodes. Only one goroutine may call its methods.
type Cluster struct {
	Net  *Net
	SSH  *SSH
	Key  string // the line for a master's authorized_keys
	spec ClusterSpec

	server *process
}

// Up makes the network and the data directory and starts the server. The caller must call Down.
func Up(ctx context.Context, spec ClusterSpec) (*Cluster, error) {
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, err
	}
	net, err := NewNet(spec.Name, spec.Address)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Net: net, spec: spec}
	if c.SSH, c.Key, err = NewSSH(net, spec.Dir); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	if _, err := os.Stat(c.data()); errors.Is(err, os.ErrNotExist) {
		if _, err := c.Dim(ctx, "init"); err != nil {
			return nil, errors.Join(err, c.Down())
		}
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	return c, nil
}

func (c *Cluster) data() string { return filepath.Join(c.spec.Dir, "data") }

// ServerLog returns the path of the server's log.
func (c *Cluster) ServerLog() string { return filepath.Join(c.spec.Dir, "serve.log") }

// PID returns the process id of the running server.
func (c *Cluster) PID() int { return c.server.cmd.Process.Pid }

// Start starts the server and waits until it is ready.
func (c *Cluster) Start(ctx context.Context) error {
	log, err := os.OpenFile(c.ServerLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// `ip netns exec` runs the command in a mount namespace of its own, so that the master appears at the path in the
	// description for the server only.
	const script = `mount -t tmpfs lab /srv && mkdir -p "$1" && mount --bind "$2" "$1" && shift 2 && exec "$@"`
	// ctx bounds the start, not the lifetime.
	cmd := c.Net.Command(context.WithoutCancel(ctx), "sh", "-c", script, "sh", c.spec.MasterAt, c.spec.Master,
		filepath.Join(c.spec.Bin, "dim"), "serve", "--data", c.data(),
		"--cluster", c.spec.Description, "--as", c.spec.Server)
	cmd.Stdout, cmd.Stderr = log, log
	c.server = startProcess(cmd)
	log.Close()
	return c.waitReady(ctx)
}

// waitReady waits until the server answers.
func (c *Cluster) waitReady(ctx context.Context) error {
	client := http.Client{
		Transport: &http.Transport{DialContext: c.Net.DialContext, DisableKeepAlives: true},
		Timeout:   2 * time.Second,
	}
	var last error
	for {
		resp, err := client.Get("http://" + c.spec.Address.Addr().String() + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		last = err
		select {
		case <-c.server.done:
			return fmt.Errorf("start server: it ended: %w; the end of its log:\n%s",
				errors.Join(c.server.err, last), tail(c.ServerLog(), 15))
		case <-ctx.Done():
			return fmt.Errorf("start server: %w; the end of its log:\n%s",
				errors.Join(ctx.Err(), last), tail(c.ServerLog(), 15))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the server with SIGTERM, as systemd does.
func (c *Cluster) Stop() { c.server.end(syscall.SIGTERM) }

// Kill ends the server with SIGKILL, as a power cut does.
func (c *Cluster) Kill() { c.server.end(syscall.SIGKILL) }

// Down ends the server and removes the network. It does not remove the directory.
func (c *Cluster) Down() error {
	if c.server != nil {
		c.Stop()
	}
	return c.Net.Close()
}

// Dim runs the dim command with the server's data directory and returns its standard output.
func (c *Cluster) Dim(ctx context.Context, args ...string) (string, error) {
	cmd := c.Net.Command(ctx, filepath.Join(c.spec.Bin, "dim"), append(args, "--data", c.data())...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("dim %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}

// DimJSON runs the dim command with -o json and decodes its output into v.
func (c *Cluster) DimJSON(ctx context.Context, v any, args ...string) error {
	out, err := c.Dim(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("dim %s: %w in %q", strings.Join(args, " "), err, out)
	}
	return nil
}

// process is a command that the kernel kills if this process ends. It is started on a thread of its own (see
// Guest.run).
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func startProcess(cmd *exec.Cmd) *process {
	p := &process{cmd: cmd, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		p.err = cmd.Start()
		close(started)
		if p.err == nil {
			p.err = cmd.Wait()
		}
	}()
	<-started
	return p
}

// end signals the process and waits until it has ended. After ten seconds it kills it.
func (p *process) end(sig syscall.Signal) {
	if p.cmd.Process == nil {
		return
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// tail returns the last n lines of a file.
func tail(path string, n int) string {
	data, _ := os.ReadFile(path)
	lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
