package nodeinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

const goodAnswer = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n" +
	"now compute:5\nlook /\nlook /etc\nlook /a%20b/%25%0A\nend\n"

// parseAnswer parses an answer and returns the directories that it names.
func parseAnswer(text string) (a answerParser, dirs []string, err error) {
	for line := range strings.Lines(text) {
		dir, isDir, err := a.line(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return a, dirs, err
		}
		if isDir {
			dirs = append(dirs, dir)
		}
	}
	return a, dirs, nil
}

func TestParseAnswer(t *testing.T) {
	a, dirs, err := parseAnswer(goodAnswer)
	if err != nil || !a.ended {
		t.Errorf("ended %v, %v", a.ended, err)
	}
	compare(t, []string{"", "etc", "a b/%\n"}, dirs)
	compare(t, "compute:5", a.now)
	if seen, err := parseState(goodAnswer); seen != "compute:5" || err != nil {
		t.Errorf("%q %v", seen, err)
	}
	const ok = "HTTP/1.0 200 OK\r\n\r\n"
	for _, text := range []string{
		"", "garbage\n", "HTTP/1.0 403 Forbidden\r\n\r\nno\n", ok + "now x:1\n", ok + "end\n",
		ok + "now x:1\nlook etc\nend\n", ok + "now x:1\nlook /%4\nend\n", goodAnswer + "more\n",
	} {
		if seen, err := parseState(text); err == nil {
			t.Errorf("%q is accepted with state %q", text, seen)
		}
	}
	if _, _, err := parseAnswer("HTTP/1.1 409 Conflict\r\n"); !errors.Is(err, errSuperseded) {
		t.Errorf("another process: %v", err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(goodAnswer)
	f.Add("HTTP/1.0 500 x\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		a, dirs, err := parseAnswer(text)
		if err == nil && (a.ended && a.now == "" || len(dirs) > 0 && !a.body) {
			t.Errorf("%+v %q", a, dirs)
		}
	})
}

func TestACallStaysWithinTheServersBounds(t *testing.T) {
	s := status{boot: "b", seen: "compute:1", memory: 3000}
	s.mounts = append(s.mounts,
		mountPoint{"/a \"b\\\xff\n", "tmp\nfs"}, mountPoint{"/" + strings.Repeat("x", maxPath), "ext4"})
	for i := range 1000 {
		s.stale = append(s.stale, staleProcess{i, "na\"me", "x.service", "/" + strings.Repeat("é", i%200), 1})
	}
	text := s.encode()
	if len(text) > 64<<10 {
		t.Errorf("a call of %d bytes", len(text))
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > 512 {
		t.Errorf("%d lines", len(lines))
	}
	var first struct {
		Boot, Seen   string
		Memory, Left int
	}
	var mount struct{ Mount, Type string }
	for i, to := range []any{&first, &mount} {
		if err := json.Unmarshal([]byte(lines[i]), to); err != nil {
			t.Fatal(err)
		}
	}
	compare(t, fmt.Sprintf("/a%%20%%22b%%5C%%FF%%0A tmp?fs b compute:1 3000 %d", 1002-(len(lines)-1)),
		fmt.Sprint(mount.Mount, " ", mount.Type, " ", first.Boot, " ", first.Seen, " ", first.Memory, " ", first.Left))
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %q", line)
		}
	}
}

func TestParseMapping(t *testing.T) {
	const maps = `55d0c0a00000-55d0c0a02000 r--p 00000000 00:17 1234567890123456789              /usr/sbin/a b
7f0000000000-7f0000001000 r-xp 00001000 00:17 12                         /usr/lib/x\012y.so (deleted)
7f0000001000-7f0000002000 r-xp 00001000 08:01 12                         /other/disk
00400000-00401000 r--p 00000000 00:17 13                                 /opt/static
7f0000002000-7f0000003000 rw-p 00000000 00:00 0                          [heap]
7f0000003000-7f0000004000 rw-p 00000000 00:00 0
`
	var got []mapping
	for line := range strings.Lines(maps) {
		if m, ok := parseMapping(strings.TrimSuffix(line, "\n"), "00:17"); ok {
			got = append(got, m)
		}
	}
	want := []mapping{
		{"55d0c0a00000-55d0c0a02000", 1234567890123456789, "/usr/sbin/a b"},
		{"7f0000000000-7f0000001000", 12, "/usr/lib/x\ny.so"},
		{"400000-401000", 13, "/opt/static"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSystemUnit(t *testing.T) {
	for cgroups, want := range map[string]string{
		"0::/system.slice/sshd.service\n":                                  "sshd.service",
		"0::/system.slice/system-getty.slice/getty@tty1.service\n":         "getty@tty1.service",
		"0::/user.slice/user-0.slice/session-3.scope\n":                    "session-3.scope",
		"0::/user.slice/user-7.slice/user@7.service/app.slice/x.service\n": "user@7.service",
		"0::/init.scope\n": "init.scope",
		"12:cpu:/\n3:pids:/system.slice/wrong.service\n1:name=systemd:/system.slice/cron.service\n" +
			"0::/system.slice/cron.service\n": "cron.service",
		"0::/\n": "", "": "", "x": "",
	} {
		if got := systemUnit(cgroups); got != want {
			t.Errorf("%q: %q, want %q", cgroups, got, want)
		}
	}
}

func TestParseMounts(t *testing.T) {
	const table = `1 1 0:2 / / rw - rootfs rootfs rw
21 1 0:23 / / rw,relatime - nfs 10.77.0.1:/nodes/n01 rw,vers=3
22 21 0:21 / /proc rw - proc proc rw
23 21 0:24 / /etc/a\040b\134 ro shared:3 master:1 - tmpfs tmpfs rw
24 23 0:25 / /etc/deeper rw - tmpfs tmpfs rw
25 21 0:23 / /usr ro - nfs 10.77.0.1:/nodes/n01 rw,vers=3
short line
`
	var got []mountPoint
	parseMounts(table, "0:23", func(m mountPoint) { got = append(got, m) })
	want := []mountPoint{{"/proc", "proc"}, {"/etc/a b\\", "tmpfs"}, {"/usr", "nfs"}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	got = nil
	const elsewhere = "1 0 0:2 / / rw - rootfs x rw\n5 1 0:9 / /mnt/x rw - nfs a rw\n" +
		"6 5 0:8 / /mnt/x/etc rw - tmpfs a rw\n"
	parseMounts(elsewhere, "0:9", func(m mountPoint) { got = append(got, m) })
	if fmt.Sprint(got) != fmt.Sprint([]mountPoint{{"/etc", "tmpfs"}}) {
		t.Errorf("on a replica that is not the root: %q", got)
	}
}

func TestInodesOf32Bits(t *testing.T) {
	const inode = 402804723550316713
	for number, want := range map[uint64]bool{
		inode: true, inode&0xffffffff ^ inode>>32: true, inode & 0xffffffff: false, inode + 1: false, 0: false,
	} {
		if got := shownAs(inode, number); got != want {
			t.Errorf("%d: %v", number, got)
		}
	}
}
