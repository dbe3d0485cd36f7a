package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"dim/internal/lab/netns"
)

// SSH runs commands on guests with one key.
type SSH struct {
	Net *netns.Net
	Key string // path of the private key
}

// NewSSH makes a key pair in dir, unless there is one. It also returns the line for authorized_keys.
func NewSSH(n *netns.Net, dir string) (s *SSH, authorizedKey string, err error) {
	key := filepath.Join(dir, "id_ed25519")
	if _, err := os.Stat(key); errors.Is(err, os.ErrNotExist) {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key).CombinedOutput()
		if err != nil {
			return nil, "", fmt.Errorf("make ssh key %s: %v: %s", key, err, out)
		}
	}
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		return nil, "", err
	}
	return &SSH{Net: n, Key: key}, strings.TrimSpace(string(pub)), nil
}

// Run runs a shell command as root on the guest at addr and returns its standard output.
func (s *SSH) Run(ctx context.Context, addr, command string) (string, error) {
	return s.RunAs(ctx, "root", addr, command)
}

// RunAs is Run as another user, whose authorized_keys has the key.
func (s *SSH) RunAs(ctx context.Context, user, addr, command string) (string, error) {
	cmd := s.Net.Command(ctx, "ssh", "-F", "none", "-i", s.Key,
		"-o", "BatchMode=yes", "-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR", "-o", "ServerAliveInterval=5",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null",
		user+"@"+addr, command)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("run %q on %s: %w: %s", command, addr, err, strings.TrimSpace(errs.String()))
	}
	return string(out), nil
}

// Await repeats Run until the command succeeds or ctx ends. It is for a guest whose sshd does not run yet.
func (s *SSH) Await(ctx context.Context, addr, command string) (string, error) {
	for {
		out, err := s.Run(ctx, addr, command)
		if err == nil {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, errors.Join(ctx.Err(), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
}
