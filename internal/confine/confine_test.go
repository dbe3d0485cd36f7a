package confine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const childName = "dim-child"

func TestMain(m *testing.M) {
	if os.Args[0] == childName {
		os.Exit(Main(context.Background(), os.Stdin, os.Stdout, testTasks()))
	}
	os.Exit(m.Run())
}

const (
	kindText Kind = Own + iota
	kindData
	kindLast
)

// testTasks are what children of these tests do.
func testTasks() map[string]Task {
	return map[string]Task{
		"echo":   echo,
		"refuse": func(context.Context, *Child) error { return errors.New("it is \x1b[31mnot\x1b[0m good") },
		"crash": func(_ context.Context, c *Child) error {
			c.SetNote("usr/bin/true\x1b[2J")
			maps.Clone(map[string]int(nil))["x"] = 1
			return nil
		},
		"gorge": func(_ context.Context, c *Child) error {
			c.SetNote("usr/lib/bomb")
			var all [][]byte
			for {
				all = append(all, bytes.Repeat([]byte{1}, 16<<20))
				runtime.KeepAlive(all)
			}
		},
		"spin": func(context.Context, *Child) error {
			for n := 0; ; n++ {
			}
		},
		"hang": func(_ context.Context, c *Child) error {
			_, _, err := c.Receive()
			return err
		},
		"babble": func(_ context.Context, c *Child) error {
			_, _ = os.Stdout.Write(bytes.Repeat([]byte{0xff}, 1<<20))
			return nil
		},
		"reach": reach,
	}
}

func echo(_ context.Context, c *Child) error {
	var wanted string
	if err := c.Request(&wanted); err != nil {
		return err
	}
	text, err := io.ReadAll(c.File(0))
	if err != nil {
		return err
	}
	n := 0
	for {
		kind, payload, err := c.Receive()
		if err != nil {
			return err
		}
		if kind == kindLast {
			return c.Send(kindText, []byte(wanted), []byte(" "), text, fmt.Appendf(nil, " %d", n))
		}
		n += len(payload)
	}
}

// reach tries what a child must not be able to do, and tells what it could.
func reach(_ context.Context, c *Child) error {
	could := []string{}
	try := func(what string, err error) {
		if err == nil {
			could = append(could, what)
		}
	}
	_, err := os.ReadFile("/etc/passwd")
	try("read a file", err)
	_, err = os.ReadDir("/")
	try("list a directory", err)
	try("make a file", os.WriteFile("x", []byte("x"), 0o600))
	try("make a file in /tmp", os.WriteFile("/tmp/x", []byte("x"), 0o600))
	_, err = c.note.WriteAt([]byte("x"), 1<<20)
	try("write much", err)
	conn, err := net.DialTimeout("tcp", "127.0.0.1:1", time.Second)
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EACCES) { // refused would mean that it was sent
		could = append(could, fmt.Sprintf("use the network (%v)", err))
	}
	try("become root", unix.Setuid(0))
	try("leave its root", unix.Chroot("/"))
	if os.Getppid() != 0 {
		could = append(could, "see its parent")
	}
	return c.Send(kindText, []byte(strings.Join(could, ", ")))
}

func limits() Limits { return Limits{Memory: 256 << 20, CPU: time.Minute, Silence: time.Minute} }

func start(t *testing.T, task string, l Limits, files ...*os.File) *Process {
	t.Helper()
	c, err := (Program{[]string{childName}}).Start(t.Context(), l, task, "wanted", files...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestATaskHasItsRequestItsFilesAndWhatItIsSent(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("file"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	c := start(t, "echo", limits(), f)
	if err := c.SendFrom(strings.NewReader(strings.Repeat("x", 3<<20)), kindData, kindLast); err != nil {
		t.Fatal(err)
	}
	kind, payload, err := c.Receive()
	if want := fmt.Sprint("wanted file ", 3<<20); err != nil || kind != kindText || string(payload) != want {
		t.Fatalf("frame %d %q, %v; want %q", kind, payload, err, want)
	}
	if _, _, err := c.Receive(); !errors.Is(err, io.EOF) {
		t.Fatalf("at the end: %v", err)
	}
}

func TestTheErrorOfATaskIsReturnedWithoutControlCharacters(t *testing.T) {
	_, _, err := start(t, "refuse", limits()).Receive()
	if err == nil || err.Error() != "it is ?[31mnot?[0m good" {
		t.Fatalf("error %q", err)
	}
}

// failure is the failure that a child is expected to end with.
func failure(t *testing.T, c *Process, want string) {
	t.Helper()
	_, _, err := c.Receive()
	if _, ok := errors.AsType[*Failure](err); !ok || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v; want a failure with %q", err, want)
	}
}

func TestAChildThatCrashesIsAnErrorThatSaysWhere(t *testing.T) {
	c := start(t, "crash", limits())
	failure(t, c, "crashed: panic: assignment to entry in nil map")
	if got := c.Note(); got != "usr/bin/true?[2J" {
		t.Errorf("note %q", got)
	}
}

func TestAChildHasLimits(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		c := start(t, "gorge", limits())
		failure(t, c, "takes more than 256 MiB of memory")
		if got := c.Note(); got != "usr/lib/bomb" {
			t.Errorf("note %q", got)
		}
	})
	t.Run("processor", func(t *testing.T) {
		l := limits()
		l.CPU = time.Second
		failure(t, start(t, "spin", l), "takes more than 1s of the processor")
	})
	t.Run("silence", func(t *testing.T) {
		l := limits()
		l.Silence = time.Second
		failure(t, start(t, "hang", l), "did nothing for 1s")
	})
	t.Run("frames", func(t *testing.T) { failure(t, start(t, "babble", limits()), "does not keep to the protocol") })
}

func TestAChildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := (Program{[]string{childName}}).Start(ctx, limits(), "hang", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	if _, _, err := c.Receive(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestAChildReachesNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	_, payload, err := start(t, "reach", limits()).Receive()
	if err != nil || len(payload) > 0 {
		t.Errorf("it could %s; %v", payload, err)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{16, 0, 0, 0, 2, 'a', 'b'})
	f.Add([]byte{16, 0xff, 0, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			_, payload, err := readFrame(r, nil)
			if err != nil {
				return
			}
			if len(payload) > MaxPayload {
				t.Fatalf("%d bytes", len(payload))
			}
		}
	})
}
