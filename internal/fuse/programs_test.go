package fuse

import (
	"os/exec"
	"testing"

	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

func TestOrdinaryProgramsWorkOnAMount(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than five seconds on a busy machine")
	}
	mnt, _ := mounted(t, Options{AllowOther: true},
		vfstest.Entry{Path: "src", Type: vfs.Directory, Mode: 0o755, Mtime: vfs.Time{Sec: 1000}},
		regular("src/a", "alpha\n"), regular("src/b c", "beta\n"), vfstest.Entry{Path: "src/hard", LinkTo: "src/a"},
		vfstest.Entry{Path: "src/link", Type: vfs.Symlink, Target: "a"},
		vfstest.Entry{Path: "src/fifo", Type: vfs.FIFO, Mode: 0o600, UID: 5, GID: 6},
	)
	for _, c := range []struct{ program, script string }{
		{"tar", `mkdir tarred && tar -C src -cf - . | tar -C tarred -xpf - && tar -C tarred -cf t.tar . &&
			tar -C src --compare -f t.tar`},
		{"cp", `cp -a src copied && test copied/hard -ef copied/a && diff -r --no-dereference -x fifo src copied`},
		{"rsync", `rsync -aH src/ synced && test -z "$(rsync -aHcin src/ synced)" && test synced/hard -ef synced/a`},
		{"git", `git init -q repo && cd repo && git config user.email a@b && git config user.name c &&
			cp -a ../src/a . && git add a && git commit -qm one && echo more >> a && git commit -qam two && git gc -q &&
			git fsck --strict && test "$(git log --oneline | wc -l)" = 2`},
		{"go", `mkdir prog && cd prog && printf 'module x\ngo 1.20\n' > go.mod &&
			printf 'package main\nfunc main() { println("hello") }\n' > main.go && go build -o prog . &&
			./prog 2>&1 | grep -q hello && mv prog prog.new && ./prog.new && rm prog.new`},
		{"rm", `rm -rf tarred copied synced repo prog t.tar && test "$(ls -A)" = src`},
	} {
		t.Run(c.program, func(t *testing.T) {
			if _, err := exec.LookPath(c.program); err != nil {
				t.Skipf("needs %s", c.program)
			}
			// The shell changes the directory. With cmd.Dir this process, which serves the mount, might have to
			// wait for the child between fork and exec.
			cmd := exec.CommandContext(t.Context(), "sh", "-ec", "cd \"$0\"\n"+c.script, mnt)
			cmd.Dir = "/"
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
