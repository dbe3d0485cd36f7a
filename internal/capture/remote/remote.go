// Package remote lists a directory of another machine and reads files of it by ssh.
//
// # How
//
// It runs the system's ssh, so that ~/.ssh/config, agents and jump hosts work. It never asks a question; a host key
// that is not known is refused. All commands share one connection. Nothing is installed or written on the other
// machine. It needs sh, GNU find, GNU tar, xargs, cat and date.
//
// # Untrusted input
//
// All output of the other machine is parsed strictly and is bounded. The output of a login shell is skipped up to a
// marker that this package chooses.
//
// # What it must not know
//
// What was captured before, and what is done with the content.
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

// Error is a failure of the connection or of a command on the other machine.
type Error struct {
	Text string
	Hint string // what to do about it, or empty
}

// Error implements error.
func (e *Error) Error() string { return e.Text }

// Location is a directory of another machine.
type Location struct {
	User, Host, Port string // User and Port may be empty: ssh has defaults
	Dir              string
}

// Session is a connection. Its methods may be used by one goroutine at a time.
type Session struct {
	location Location
	args     []string // of ssh
	dir      string   // of the control socket
	marker   string   // ends the output of a login shell
	main     *command // keeps the connection open
	login    time.Duration
}

// loginTime is how long a connection, and a login shell until it runs a command, may take. Somebody may have to touch a
// hardware key.
const loginTime = 2 * time.Minute

// Open connects to a machine. If config is not empty, it is the configuration file of ssh. The caller closes the
// session. The connection ends with this process at the latest.
func Open(ctx context.Context, l Location, config string) (*Session, error) {
	return open(ctx, l, config, loginTime)
}

func open(ctx context.Context, l Location, config string, login time.Duration) (*Session, error) {
	dir, err := os.MkdirTemp("", "dim-ssh-")
	if err != nil {
		return nil, err
	}
	s := &Session{location: l, dir: dir, marker: "dim-" + rand.Text(), login: login}
	s.args = l.args(config, filepath.Join(dir, "s"))
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

// args returns the options of all commands. They override the configuration: no questions, no terminal, no forwarding,
// no other commands, and the end of a dead connection.
func (l Location) args(config, socket string) []string {
	args := []string{
		"-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no",
		"-o", "RemoteCommand=none", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15",
		"-o", "ServerAliveCountMax=4", "-o", "ControlPersist=no", "-S", socket,
	}
	if config != "" {
		args = append(args, "-F", config)
	}
	if l.Port != "" {
		args = append(args, "-p", l.Port)
	}
	if l.User != "" {
		args = append(args, "-l", l.User)
	}
	return args
}

// command is a command that runs on the other machine.
type command struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser // nil if the caller has given one
	out    *bufio.Reader  // the output after the marker
	stderr boundedBuffer
	once   sync.Once
	err    error
}

// start runs a script, and returns when it has printed the marker. The option master is the value of ControlMaster for
// ssh.
func (s *Session) start(ctx context.Context, master, script string, stdin io.Reader) (*command, error) {
	full := fmt.Sprintf("LC_ALL=C; export LC_ALL; printf '%s\\0'; %s", s.marker, script)
	args := append(s.args[:len(s.args):len(s.args)],
		"-o", "ControlMaster="+master, "--", s.location.Host, "exec /bin/sh -c "+quoteForAll(full))
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
	return c, s.awaitMarker(ctx, c)
}

// loginHint is what to do if a login shell does not run commands.
const loginHint = "start-up files of the shell, such as ~/.bashrc, must not read input or execute another program " +
	"when there is no terminal: begin them with  [ -t 0 ] || return"

// awaitMarker skips the output of the login shell. If the command does not begin, it is ended.
func (s *Session) awaitMarker(ctx context.Context, c *command) error {
	late := make(chan struct{})
	timer := time.AfterFunc(s.login, func() {
		close(late)
		_ = c.cmd.Process.Kill()
	})
	err := skipTo(c.out, s.marker+"\x00")
	if err == nil && timer.Stop() {
		return nil
	}
	select {
	case <-late:
		_ = c.wait()
		text := fmt.Sprintf("the login shell of %s has not run a command within %v", s.location.Host, s.login)
		return &Error{text, loginHint}
	default:
	}
	timer.Stop()
	if errors.Is(err, io.EOF) && c.wait() == nil && c.status() == 0 && ctx.Err() == nil {
		return &Error{"the login shell of " + s.location.Host + " has ended without running the command", loginHint}
	}
	return c.failed(ctx, err)
}

// maxLoginOutput bounds the output of a login shell before the marker.
const maxLoginOutput = 64 << 10

// skipTo reads up to and including marker.
func skipTo(r io.ByteReader, marker string) error {
	var seen []byte
	for len(seen) < maxLoginOutput {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		seen = append(seen, b)
		if b == marker[len(marker)-1] && bytes.HasSuffix(seen, []byte(marker)) {
			return nil
		}
	}
	return &Error{"the login shell prints text and does not run the command", loginHint}
}

// wait waits for the end of the command. It returns errors of ssh; for the exit status of the script see status.
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

// stop ends a command whose output is not needed any more.
func (c *command) stop() {
	if c.stdin != nil {
		c.stdin.Close()
	}
	_ = c.cmd.Process.Kill()
	_ = c.wait()
}

// status returns the exit status of the script, after wait.
func (c *command) status() int { return c.cmd.ProcessState.ExitCode() }

// hints returns messages of ssh and what to do about them.
func hints() [][2]string {
	return [][2]string{
		{"Host key verification failed", "log in once by hand as the user that dim runs as, and compare the key's " +
			"fingerprint; or put the key into /etc/ssh/ssh_known_hosts"},
		{"REMOTE HOST IDENTIFICATION HAS CHANGED",
			"the machine has another key than before: find out why, then ssh-keygen -R HOST"},
		{"Permission denied",
			"the user that dim runs as needs a key that the master accepts and that asks for no passphrase: " +
				"ssh-copy-id"},
		{"Could not resolve hostname", "is the name right? ssh's configuration may have an alias for it"},
		{"Connection refused", "does sshd run there, and on this port?"},
		{"Connection timed out", "is the machine up, and is there a firewall on the way?"},
		{"No route to host", "is the machine up, and is there a firewall on the way?"},
		{"can't cd to", "is the directory right?"},
		{"not found", "the master needs sh, GNU find, GNU tar, xargs and date"},
	}
}

// explain returns an error with the last message of the command or of ssh, and a hint if there is one for it.
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

// boundedBuffer keeps the first maxStderr bytes that are written to it.
type boundedBuffer struct {
	mu        sync.Mutex
	b         []byte
	truncated bool
}

const maxStderr = 256 << 10

func (t *boundedBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	keep := min(len(p), maxStderr-len(t.b))
	t.b = append(t.b, p[:keep]...)
	t.truncated = t.truncated || keep < len(p)
	return len(p), nil
}

// text returns the content as printable text.
func (t *boundedBuffer) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Map(func(r rune) rune {
		if r != '\n' && (r < ' ' || r == 0x7f) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(t.b), "?"))
}

func (t *boundedBuffer) last() string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(t.text(), "?\n", "\n")), "\n")
	return lines[len(lines)-1]
}
