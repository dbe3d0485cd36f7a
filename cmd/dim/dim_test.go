package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/control/client"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"dim": main})
}

// TestScripts runs testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("DIM_DATA", filepath.Join(e.WorkDir, "data"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":        scriptCode,
			"ready":       scriptReady,
			"fill":        scriptFill,
			"waitmounted": scriptWaitMounted,
			"rolledout":   scriptRolledOut,
			"edit":        scriptEdit,
			"revision":    scriptRevision,
		},
	})
}

// scriptCode runs dim and expects an exit code: code 3 status.
func scriptCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N ARGUMENTS")
	}
	err := ts.Exec("dim", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("dim %s: exit code %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// scriptReady waits until the daemon answers and is connected to the shared state.
func scriptReady(ts *testscript.TestScript, _ bool, _ []string) {
	c := client.New(ts.Getenv("DIM_DATA"))
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var s control.Status
		if s, err = c.Status(context.Background()); err == nil && s.Coord.OK {
			return
		}
	}
	ts.Fatalf("the daemon does not answer: %v", err)
}

// scriptRolledOut waits until a rollout, which may not have begun yet, is in a state: rolledout 5 done.
func scriptRolledOut(ts *testscript.TestScript, _ bool, args []string) {
	c := client.New(ts.Getenv("DIM_DATA"))
	id, err := strconv.Atoi(args[0])
	ts.Check(err)
	var r control.Rollout
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if r, err = c.RolloutStatus(context.Background(), id); err == nil && r.State == args[1] {
			return
		}
	}
	ts.Fatalf("rollout %d is %s: %s %v", id, r.State, r.Reason, err)
}

// scriptWaitMounted waits until dim has mounted something at a directory.
func scriptWaitMounted(ts *testscript.TestScript, _ bool, args []string) {
	at := " " + ts.MkAbs(args[0]) + " fuse.dim "
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile("/proc/mounts")
		ts.Check(err)
		if strings.Contains(string(b), at) {
			return
		}
	}
	ts.Fatalf("nothing is mounted at %s", args[0])
}

// scriptEdit copies a file with each OLD replaced by NEW: edit FROM TO OLD NEW.
func scriptEdit(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[2]) {
		ts.Fatalf("%s has no %s", args[0], args[2])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.ReplaceAll(text, args[2], args[3])), 0o600))
}

// scriptRevision sets $REVISION to the revision of the applied description.
func scriptRevision(ts *testscript.TestScript, _ bool, _ []string) {
	s, err := client.New(ts.Getenv("DIM_DATA")).Status(context.Background())
	ts.Check(err)
	ts.Setenv("REVISION", strconv.FormatInt(s.Revision, 10))
}

// scriptFill replaces $NAME in files by the value in the environment.
func scriptFill(ts *testscript.TestScript, _ bool, args []string) {
	for _, name := range args {
		text := os.Expand(ts.ReadFile(name), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

var update = flag.Bool("update", false, "write docs/reference/dim.md")

func TestTheReferencePageIsUpToDate(t *testing.T) {
	t.Setenv("DIM_DATA", "")
	var b bytes.Buffer
	b.WriteString("# Commands\n\nThis page is what `dim COMMAND --help` prints, written by `make docs`.\n")
	document(&b, (&app{}).root())
	const page = "../../docs/reference/dim.md"
	if *update {
		if err := os.WriteFile(page, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s is out of date (make docs):\n%s", page, diff)
	}
}

// document writes the help of cmd and all below it.
func document(b *bytes.Buffer, cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	if cmd.Runnable() {
		text += "\n\n" + cmd.UsageString()
	}
	fmt.Fprintf(b, "\n## %s\n\n```\n%s\n```\n", cmd.CommandPath(), strings.TrimRight(text, "\n"))
	for _, c := range cmd.Commands() {
		if c.Name() != "help" && !c.Hidden {
			document(b, c)
		}
	}
}

func TestEveryCommandHasExamplesAndCompletion(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		leaf := !cmd.HasSubCommands() && cmd.Runnable() && cmd.Name() != "help" && !cmd.Hidden
		if leaf && cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if leaf && cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil && cmd.Name() != "umount" {
			t.Errorf("%s has no completion for its operands", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk((&app{}).root())
}

func TestSizesCountsAndAgesAreFormatted(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 1 << 20: "1.0 MiB", 1<<20 - 1: "1.0 MiB",
		2040109466: "1.9 GiB", 1<<64 - 1: "16.0 EiB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 59 * time.Second: "59s", time.Minute: "1m", 47 * time.Hour: "47h", 48 * time.Hour: "2d",
	} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("ago(%v) = %q, want %q", d, got, want)
		}
	}
	if got := ago(time.Time{}, now); got != "" {
		t.Errorf("ago(never) = %q", got)
	}
}

func TestAgesAreParsed(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": 0, "0d": 0, "90m": 90 * time.Minute, "1.5d": 36 * time.Hour, "30d": 720 * time.Hour,
	} {
		if age, err := days(text); age != want || err != nil {
			t.Errorf("%q is %v, %v, want %v", text, age, err, want)
		}
	}
	for _, bad := range []string{"-1d", "-5m", "d", "5", "1000000d", "-1000000d", "99999999d"} {
		if age, err := days(bad); err == nil {
			t.Errorf("%q is %v", bad, age)
		}
	}
}

func TestControlCharactersAreQuoted(t *testing.T) {
	for in, want := range map[string]string{
		"etc/motd": "etc/motd", "größe": "größe", "": "",
		"a\x1b[2Jb": `"a\x1b[2Jb"`, "a\nb": `"a\nb"`, "bad\xff": `"bad\xff"`,
	} {
		if got := safe(in); got != want {
			t.Errorf("safe(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestMessagesShowNoControlCharacters(t *testing.T) {
	for _, tt := range []struct{ message, arg, want string }{
		{"open /nowhere: not there\nhint", "/nowhere", "open /nowhere: not there\nhint"},
		{"open a\x1b[2Jb: not there", "a\x1b[2Jb", `open "a\x1b[2Jb": not there`},
		{"node n01\ndim: all is well: not there", "n01\ndim: all is well", `node "n01\ndim: all is well": not there`},
		{"a file \x1b]0;x\a of the master", "", `a file \x1b]0;x\a of the master`},
		{"bad\xffbyte, größe", "", `bad\xffbyte, größe`},
	} {
		if got := showable(tt.message, []string{tt.arg}); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.message, got, tt.want)
		}
	}
	var b strings.Builder
	if code := run([]string{"cluster", "check", "/no\x1b[31mwhere"}, nil, io.Discard, &b); code != exitNotFound ||
		strings.Contains(b.String(), "\x1b") {
		t.Errorf("exit code %d: %q", code, b.String())
	}
}

func TestHelpForACommandThatThereIsNot(t *testing.T) {
	for line, want := range map[string]string{
		"help nosuch":        "dim: unknown command \"nosuch\"\nhint: dim --help lists the commands\n",
		"help node nosuch":   "dim: node: unknown command \"nosuch\"\nhint: dim node --help lists the commands\n",
		"help statu":         "dim: unknown command \"statu\"\nhint: did you mean status?\n",
		"help status":        "",
		"help node":          "",
		"help rollout pause": "",
		"help":               "",
	} {
		var b strings.Builder
		code := run(strings.Fields(line), nil, io.Discard, &b)
		if b.String() != want || (code == exitUsage) != (want != "") {
			t.Errorf("%s: exit code %d, %q", line, code, b.String())
		}
	}
}

func TestProgressShowsRateAndTimeLeft(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		at   control.Progress
		want string
	}{
		{control.Progress{Stage: "look", Files: 1200, Started: now}, "compute: look 1,200 files, 0 B"},
		{
			control.Progress{
				Stage: "read", Files: 5, FilesTotal: 10, Bytes: 10 << 20, BytesTotal: 40 << 20,
				Started: now.Add(-10 * time.Second),
			},
			"compute: read 5/10 files, 10.0 MiB of 40.0 MiB, 1.0 MiB/s, 30s left",
		},
	} {
		tt.at.Image = "compute"
		if got := progressLine(tt.at, now); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

func TestStatusFitsOnOneScreen(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	s := control.Status{
		Server: "head", Program: "v1", PID: 7, Started: now.Add(-time.Hour),
		Cluster: "small", Applied: control.Applied{Time: now.Add(-2 * time.Minute), Revision: 5},
		Coord: control.Coord{Kind: "embedded", OK: true, Revision: 9},
		Services: []control.Service{
			{Name: "nfs", Address: "10.0.0.1:2049"}, {Name: "http", Address: "10.0.0.1:80"},
			{Name: "nfs", Address: "127.0.0.1:2049"},
		},
		Disks: []control.Disk{{Path: "/var/lib/dim", Bytes: 10 << 30, BytesFree: 4 << 30}},
		Kept: control.Kept{
			Quota:   &control.Quota{Bytes: 20 << 30, Files: 100000},
			Expires: []control.Removal{{Node: "n01", Image: "compute", Snapshot: true, Stamp: "S1", Expires: now}},
		},
		Images: []control.Image{
			{Name: "compute", Nodes: 1204, Use: []control.Use{
				{Version: 2, Count: 1200, Next: 3}, {Version: 2, Count: 3}, {Count: 1},
			}, Newest: &control.Version{
				Number: 3, Created: now.Add(-time.Hour), Files: 90000, Bytes: 2 << 30,
				Kernel: "6.1", Nodes: []string{"n01"},
			}},
			{Name: "login", Nodes: 1},
		},
		Servers: []control.Server{
			{Name: "head", HasReported: true, Observed: &control.Observed{Up: true, Started: now.Add(-time.Hour)}},
			{
				Name: "is1", Nodes: 1200, HasReported: true, Reported: now, Observed: &control.Observed{
					Up: true, Started: now.Add(-time.Minute), Stages: map[string]int{"running": 1199, "off": 1},
					Shows: map[string]int{"compute@2": 1200},
					Versions: []control.HeldVersion{
						{Version: "compute@2"},
						{Version: "compute@3", Missing: &control.Missing{Bytes: 3 << 30, Left: 40}},
					},
				},
			},
			{
				Name: "is2", Nodes: 3, HasReported: true, Reported: now.Add(-time.Minute), Observed: &control.Observed{
					Stages: map[string]int{"off": 3}, Shows: map[string]int{"": 2, "compute@1": 1},
					Problems: make([]control.Problem, 2),
				},
			},
			{Name: "is3", Nodes: 2},
		},
		Nodes: 1205, Stages: map[string]int{"off": 1, "running": 1203, "mount": 1},
		Machines: []control.Machine{{MAC: "02:00:00:00:00:01", Last: now, Asked: "PXE"}},
		Problems: []control.Problem{{
			About: "image login", Text: "never captured", Hint: "dim image capture login", Since: now.Add(-time.Minute),
		}},
	}
	var b bytes.Buffer
	a := &app{format: "table", out: &b}
	if err := a.show(s, func(w io.Writer) { printStatus(w, s, now) }); err != nil {
		t.Fatal(err)
	}
	want := `server   head, pid 7, up 1h, dim v1
cluster  small, description revision 5 applied 2m ago
state    embedded etcd
listens  http 10.0.0.1:80, nfs 10.0.0.1:2049 127.0.0.1:2049
servers  4: 2 up, 1 silent (is2), 1 never reported (is3)
  each   head: up 1h, nodes 0
  each   is1: up 1m, nodes 1,200: 1,199 running, 1 off; they show compute@2; gets compute@3: 3.0 GiB to go, 40s
  each   is2: silent for 1m, nodes 3: 3 off; they show 2 nothing, 1 compute@1; 2 problems
  each   is3: never reported, nodes 2
disk     /var/lib/dim: 4.0 GiB of 10.0 GiB free
quota    20.0 GiB, 100,000 files for each node without another
image    compute@3, 1h old, 90,000 files, 2.0 GiB, kernel 6.1
  nodes  1,203 on compute@2 (at their next boot 1,200 to compute@3), 1 without a version, or not known
image    login: not captured yet, 1 node
nodes    1,205: 1,203 running, 1 mount, 1 off
unknown  02:00:00:00:00:01, 0s ago, PXE
expires  snapshot of n01 (compute) at S1, 2026-11-22 12:00:00 +0000
problem  image login: never captured (since 1m)
  hint   dim image capture login
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

func TestARootsOwnChangeIsOneSlash(t *testing.T) {
	for c, want := range map[control.Change]string{
		{Path: "/", Kind: control.Attributes, Type: "directory", What: "time"}: "a / (time)\n",
		{Path: "/etc", Kind: control.Added, Type: "directory"}:                 "A /etc/\n",
		{
			Path: "/lib", Kind: control.Content, Type: "directory", What: "symlink to usr/lib → directory",
		}: "M /lib/ (symlink to usr/lib → directory)\n",
	} {
		var b strings.Builder
		if printChange(&b, c); b.String() != want {
			t.Errorf("got %q, want %q", b.String(), want)
		}
	}
}
