package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dim/internal/lab/netns"
	"dim/internal/testkit"
)

// block is one fenced block of docs/quickstart.md that is marked ```sh NAME.
type block struct{ name, text string }

var blockPattern = regexp.MustCompile("(?ms)^```sh ([a-z]+)\n(.*?)^```$")

func quickstart(t *testing.T) []block {
	t.Helper()
	page, err := os.ReadFile("../docs/quickstart.md")
	testkit.Must(t, err)
	var list []block
	for _, m := range blockPattern.FindAllStringSubmatch(string(page), -1) {
		list = append(list, block{m[1], m[2]})
	}
	return list
}

// private isolates the shell script that follows: what it installs, writes or mounts is not visible outside. $1
// is an empty directory, $2 the master, to which nothing is written.
const private = `set -e
mount --make-rprivate /
over() {
	mkdir -p "$3/upper" "$3/work" &&
	mount -t overlay -o "lowerdir=$1,upperdir=$3/upper,workdir=$3/work" over "$2"
}
over /etc /etc "$1/over-etc"
for d in /srv /var/lib /usr/local/sbin /mnt; do
	mkdir -p "$1$d"
	mount --bind "$1$d" "$d"
done
mkdir -p /srv/dim/masters/compute
over "$2" /srv/dim/masters/compute "$1/over-master"
hash -r
set +e
`

// ready returns, for a block that stays in the foreground, the command that succeeds when it is ready.
func ready(name string) string {
	return map[string]string{"serve": "dim status; [ $? != 4 ]", "mount": "mountpoint -q /mnt && ls /mnt/etc"}[name]
}

// shell makes one script of the page. The output of each block goes to NAME.out, its exit code to NAME.code.
func shell(blocks []block, dir string) string {
	var b strings.Builder
	b.WriteString(private)
	for _, bl := range blocks {
		at := filepath.Join(dir, bl.name)
		if bl.name == "again" { // the page says to change something
			b.WriteString("echo 'a new day' > /srv/dim/masters/compute/etc/motd\n")
			b.WriteString("rm -f /srv/dim/masters/compute/etc/gone\n")
		}
		if wait := ready(bl.name); wait != "" {
			fmt.Fprintf(&b, "( %s ) > %s.out 2>&1 &\necho $! >> %s/pids\n", strings.TrimSpace(bl.text), at, dir)
			fmt.Fprintf(&b, "for i in $(seq 600); do ( %s ) > /dev/null 2>&1 && break; sleep 0.1; done\n", wait)
			fmt.Fprintf(&b, "echo 0 > %s.code\n", at)
			continue
		}
		fmt.Fprintf(&b, "( set -e\n%s ) > %s.out 2>&1; echo $? > %s.code\n", bl.text, at, at)
	}
	return b.String()
}

func TestTheQuickstartWorks(t *testing.T) {
	needLab(t)
	blocks := quickstart(t)
	names := map[string]bool{}
	for _, b := range blocks {
		names[b.name] = true
	}
	for _, want := range []string{"install", "describe", "check", "init", "serve", "capture", "look", "nodes", "again",
		"undo", "mount", "unmount"} {
		if !names[want] {
			t.Errorf("the page has no block %q", want)
		}
	}
	net, err := netns.New(fmt.Sprintf("dim-qs-%d", os.Getpid()), serverAddr)
	testkit.Must(t, err)
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
	})
	master := os.Getenv("DIM_LAB_MASTER")
	if master == "" {
		master = smallMaster(t)
		tree(t, master, map[string]string{"boot/vmlinuz-6.1.0-1-amd64": "a kernel",
			"lib/modules/6.1.0-1-amd64/modules.dep": ""})
	}
	dir, out := t.TempDir(), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	script := shell(blocks, out) + fmt.Sprintf("kill $(cat %s/pids); wait\n", out)
	// When the first process of a PID namespace ends, the kernel kills all others: what the page's commands
	// left running.
	cmd := net.Command(ctx, "unshare", "--fork", "--pid", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", dir,
		master)
	cmd.Dir = ".."
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if _, ended := err.(*exec.ExitError); !ended {
			t.Fatal(err)
		}
	}
	for _, b := range blocks {
		text, _ := os.ReadFile(filepath.Join(out, b.name+".out"))
		code, _ := os.ReadFile(filepath.Join(out, b.name+".code"))
		t.Logf("%s\n%s%s", b.name, b.text, text)
		if strings.TrimSpace(string(code)) != "0" {
			t.Errorf("%s: exit code %q", b.name, bytes.TrimSpace(code))
		}
	}
	for name, want := range map[string]string{
		"check": "cluster small, 1 server, 1 image, 4 nodes", "capture": "compute@1", "again": "compute@2",
		"undo": "rollout 1 undone", "nodes": "n04 ", "look": "version",
	} {
		if text, _ := os.ReadFile(filepath.Join(out, name+".out")); !strings.Contains(string(text), want) {
			t.Errorf("%s does not print %q", name, want)
		}
	}
	if t.Failed() {
		t.Logf("%s", said.Bytes())
	}
}
