// Package remote looks into the root directory of another machine by ssh: what is there, and the content of what is asked for.
//
// # How
//
// It runs the system's ssh, so that what ~/.ssh/config, an agent or a jump host can do works here, and never asks a question: a key that is not known is
// refused. One connection is made; the commands share it. On the other machine nothing is installed or written: it runs sh, GNU find, GNU tar, xargs, cat
// and date, which an ordinary Linux has.
//
// # Hostile bytes
//
// The other machine is trusted to be the master, not to speak well. All that it says is parsed strictly and bounded; what a login shell prints before
// is passed over, up to a mark that this side has chosen.
//
// # What it must not know
//
// What was captured before, and what becomes of it.
package remote

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Error is what went wrong with the connection or on the other side.
type Error struct {
	Text string
	Hint string // what to do about it; may be empty
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Place is a directory of another machine.
type Place struct {
	User, Host, Port string // User and Port may be empty: ssh knows
	Dir              string
}

// Session is a connection. Its methods may be used by one goroutine at a time.
type Session struct {
	place Place
	args  []string // of ssh
	dir   string   // of the control socket
	mark  string
	main  *command // holds the connection open
}

// Open connects. The configuration file replaces ssh's own if it is not empty. The caller closes the session; when this
// process ends without, the connection ends with it.
func Open(ctx context.Context, p Place, config string) (*Session, error) {
	dir, err := os.MkdirTemp("", "dim-ssh-")
	if err != nil {
		return nil, err
	}
	s := &Session{place: p, dir: dir, mark: "dim-" + rand.Text()}
	s.args = p.args(config, filepath.Join(dir, "s"))
	s.main, err = s.start(ctx, "yes", "exec cat >/dev/null", nil)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// Close ends the connection.
func (s *Session) Close() error {
	s.main.stdin.Close()
	return errors.Join(s.main.wait(), os.RemoveAll(s.dir))
}

// args are the options that all commands have. Those on the command line win over the configuration: no questions, no terminal,
// nothing forwarded, no command but ours, and a peer that has vanished is noticed.
func (p Place) args(config, socket string) []string {
	args := []string{
		"-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no", "-o", "RemoteCommand=none",
		"-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", "-o", "ControlPersist=no", "-S", socket,
	}
	if config != "" {
		args = append(args, "-F", config)
	}
	if p.Port != "" {
		args = append(args, "-p", p.Port)
	}
	if p.User != "" {
		args = append(args, "-l", p.User)
	}
	return args
}

// command is one that runs on the other side.
type command struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser // nil when the caller gave one
	out    *bufio.Reader  // what comes behind the mark
	stderr tail
	once   sync.Once
	err    error
}

// start runs a script, and returns when it has said the mark. The master option is ssh's ControlMaster.
func (s *Session) start(ctx context.Context, master, script string, stdin io.Reader) (*command, error) {
	full := fmt.Sprintf("LC_ALL=C; export LC_ALL; printf '%s\\0'; %s", s.mark, script)
	args := append(s.args[:len(s.args):len(s.args)], "-o", "ControlMaster="+master, "--", s.place.Host, "exec /bin/sh -c "+quote(full))
	c := &command{cmd: exec.CommandContext(ctx, "ssh", args...)}
	c.cmd.WaitDelay = 10 * time.Second
	c.cmd.Stderr = &c.stderr
	var err error
	if c.cmd.Stdin = stdin; stdin == nil {
		if c.stdin, err = c.cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, &Error{fmt.Sprintf("run ssh: %v", err), "install the ssh client on this machine"}
	}
	c.out = bufio.NewReaderSize(out, 256<<10)
	if err := skipTo(c.out, s.mark+"\x00"); err != nil {
		return nil, c.failed(ctx, err)
	}
	return c, nil
}

// maxNoise is how much a login shell may print before the mark.
const maxNoise = 64 << 10

// skipTo reads up to and including mark.
func skipTo(r io.ByteReader, mark string) error {
	var seen []byte
	for len(seen) < maxNoise {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		seen = append(seen, b)
		if b == mark[len(mark)-1] && bytes.HasSuffix(seen, []byte(mark)) {
			return nil
		}
	}
	return errors.New("the login shell talks and does not run the command")
}

// wait waits for the command's end, and returns the error that is ssh's: the exit status of the script is for the caller to ask for.
func (c *command) wait() error {
	c.once.Do(func() {
		_, _ = io.Copy(io.Discard, c.out)
		err := c.cmd.Wait()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || !exit.Exited() || exit.ExitCode() == 255) {
			c.err = c.explain(err)
		}
	})
	return c.err
}

// stop ends a command whose output is of no interest any more.
func (c *command) stop() {
	if c.stdin != nil {
		c.stdin.Close()
	}
	_ = c.cmd.Process.Kill()
	_ = c.wait()
}

// status is the script's exit status, after wait.
func (c *command) status() int { return c.cmd.ProcessState.ExitCode() }

// hints are what to do about what ssh says.
func hints() [][2]string {
	return [][2]string{
		{"Host key verification failed", "log in once by hand as the user that dim runs as, and compare the key's fingerprint; or put the key into /etc/ssh/ssh_known_hosts"},
		{"REMOTE HOST IDENTIFICATION HAS CHANGED", "the machine has another key than before: find out why, then ssh-keygen -R HOST"},
		{"Permission denied", "the user that dim runs as needs a key that the master accepts and that asks for no passphrase: ssh-copy-id"},
		{"Could not resolve hostname", "is the name right? ssh's configuration may have an alias for it"},
		{"Connection refused", "does sshd run there, and on this port?"},
		{"Connection timed out", "is the machine up, and is there a firewall on the way?"},
		{"No route to host", "is the machine up, and is there a firewall on the way?"},
		{"can't cd to", "is the directory right?"},
		{"not found", "the master needs sh, GNU find, GNU tar, xargs and date"},
	}
}

// explain makes an error of what the other side, or ssh, said last.
func (c *command) explain(err error) *Error {
	text := c.stderr.last()
	if text == "" {
		text = "the connection broke off: " + err.Error()
	}
	e := &Error{Text: text}
	for _, h := range hints() {
		if strings.Contains(c.stderr.text(), h[0]) {
			e.Hint = h[1]
			break
		}
	}
	return e
}

// tail keeps the first of what is written to it, up to a bound.
type tail struct {
	mu   sync.Mutex
	b    []byte
	lost bool
}

const maxStderr = 256 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := min(len(p), maxStderr-len(t.b))
	t.b = append(t.b, p[:keep]...)
	t.lost = t.lost || keep < len(p)
	return len(p), nil
}

// text is all of it, fit to be shown.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r == 0x7f) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(t.b), "?"))
}

func (t *tail) last() string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(t.text(), "?\n", "\n")), "\n")
	return lines[len(lines)-1]
}
