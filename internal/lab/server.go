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
	"strings"
	"syscall"
	"time"

	"dim/internal/lab/netns"
)

// ServerSpec describes a server to start.
type ServerSpec struct {
	Net         *netns.Net // where it runs
	Dir         string     // directory for the data directory and the log
	Bin         string     // directory of dim and dim-init-ARCH
	Master      string     // directory of the master, which the server sees as MasterAt; "": it sees none
	MasterAt    string     // path of the master in the description
	Description string     // path of the XML file to apply at the start; "": none
	As          string     // name of the server in the description; "": the one that it joined as
	Address     netip.Addr // where it serves HTTP on port 80
}

// Server is one server process. Only one goroutine may call its methods.
type Server struct {
	spec    ServerSpec
	process *process
}

// NewServer returns a server that does not run yet. Its data directory may have to be made by `dim init` or `dim join`.
func NewServer(spec ServerSpec) *Server { return &Server{spec: spec} }

func (s *Server) data() string { return filepath.Join(s.spec.Dir, "data") }

// ServerLog returns the path of the server's log.
func (s *Server) ServerLog() string { return filepath.Join(s.spec.Dir, "serve.log") }

// PID returns the process id of the running server.
func (s *Server) PID() int { return s.process.cmd.Process.Pid }

// Start starts the server and waits until it is ready.
func (s *Server) Start(ctx context.Context) error {
	log, err := os.OpenFile(s.ServerLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// ctx bounds the start, not the lifetime.
	cmd := s.command(context.WithoutCancel(ctx))
	cmd.Stdout, cmd.Stderr = log, log
	s.process = startProcess(cmd)
	log.Close()
	return s.waitReady(ctx)
}

// command returns the command that serves. `ip netns exec` runs it in a mount namespace of its own, so that the master
// appears at the path in the description for the server only.
func (s *Server) command(ctx context.Context) *exec.Cmd {
	args := []string{filepath.Join(s.spec.Bin, "dim"), "serve", "--data", s.data()}
	if s.spec.Description != "" {
		args = append(args, "--cluster", s.spec.Description)
	}
	if s.spec.As != "" {
		args = append(args, "--as", s.spec.As)
	}
	if s.spec.Master == "" {
		return s.spec.Net.Command(ctx, args[0], args[1:]...)
	}
	const script = `mount -t tmpfs lab /srv && mkdir -p "$1" && mount --bind "$2" "$1" && shift 2 && exec "$@"`
	args = append([]string{"-c", script, "sh", s.spec.MasterAt, s.spec.Master}, args...)
	return s.spec.Net.Command(ctx, "sh", args...)
}

// waitReady waits until the server answers.
func (s *Server) waitReady(ctx context.Context) error {
	client := http.Client{
		Transport: &http.Transport{DialContext: s.spec.Net.DialContext, DisableKeepAlives: true},
		Timeout:   2 * time.Second,
	}
	var last error
	for {
		resp, err := client.Get("http://" + s.spec.Address.String() + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = errors.New(resp.Status)
		}
		last = err
		select {
		case <-s.process.done:
			return fmt.Errorf("start server: it ended: %w; the end of its log:\n%s",
				errors.Join(s.process.err, last), tail(s.ServerLog(), 15))
		case <-ctx.Done():
			return fmt.Errorf("start server: %w; the end of its log:\n%s",
				errors.Join(ctx.Err(), last), tail(s.ServerLog(), 15))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop ends the server with SIGTERM, as systemd does. A server that does not run stays as it is.
func (s *Server) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server with SIGKILL, as a power cut does.
func (s *Server) Kill() { s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) {
	if s.process != nil {
		s.process.end(sig)
	}
}

// Dim runs the dim command with the server's data directory and returns its standard output.
func (s *Server) Dim(ctx context.Context, args ...string) (string, error) {
	cmd := s.spec.Net.Command(ctx, filepath.Join(s.spec.Bin, "dim"), append(args, "--data", s.data())...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("dim %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}

// DimJSON runs the dim command with -o json and decodes its output into v.
func (s *Server) DimJSON(ctx context.Context, v any, args ...string) error {
	out, err := s.Dim(ctx, append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return fmt.Errorf("dim %s: %w in %q", strings.Join(args, " "), err, out)
	}
	return nil
}
