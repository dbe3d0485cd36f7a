package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/lab"
)

// Each is a shell script that runs in a root as its own, in an empty directory, and prints what must be the same wherever that root is.
var realWork = []struct{ name, script string }{
	{"tar of the whole root", `
		tar -C / --sort=name --numeric-owner --one-file-system --exclude=./root --exclude=./etc --exclude=./dev --exclude=./run \
			--exclude=./tmp --exclude=./var/tmp --exclude=./proc --exclude=./sys -cf - . | sha256sum
		tar -C /etc --sort=name --numeric-owner --exclude=./hostname --exclude=./hosts --exclude=./machine-id \
			--exclude=./network --exclude=./systemd -cf - . | tar -tvf - | grep -v '^d.* \./$' | sha256sum`},
	{"rsync", `
		rsync -aHX /usr/lib/python3 /etc/alternatives . && rsync -aHXnic /usr/lib/python3 /etc/alternatives .
		rm -r python3/* && rsync -aHX --delete /usr/lib/python3 . && rsync -aHXnic --delete /usr/lib/python3 .`},
	{"a compilation with make -j", `
		for i in $(seq 30); do echo "int f$i(int x) { return x * $i + ($i > 1 ? 1 : 0); }" >f$i.c; done
		{ for i in $(seq 30); do echo "int f$i(int);"; done; echo '#include <stdio.h>'; echo 'int main(void) { int n = 1;'
		  for i in $(seq 30); do echo "n = f$i(n) % 10007;"; done; echo 'printf("%d", n); return 0; }'; } >main.c
		objects=$(for i in $(seq 30); do echo f$i.o; done | tr '\n' ' ')
		printf 'all: prog\nlibf.a: %s\n\tar rcD $@ $^\nprog: main.o libf.a\n\t$(CC) -o $@ main.o libf.a\n' "$objects" >Makefile
		make -j4 >/dev/null && ./prog && make -j4 && touch f7.c && make -j4 && sha256sum prog libf.a`},
	{"git", `
		export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1
		git config --global user.email a@b.example && git config --global user.name A
		git init -q -b main one && cd one && cp -a /usr/lib/python3/dist-packages /etc/pam.d . && git add -A && git commit -qm one
		for i in $(seq 15); do echo $i >>pam.d/other; mv pam.d/login pam.d/l; mv pam.d/l pam.d/login; git commit -qam $i; done; cd ..
		git clone -q --no-local one two && cd two && git gc -q --aggressive --prune=now && git fsck --full 2>&1
		git status --short; git rev-parse HEAD; git checkout -q HEAD~5 && git checkout -q main; git ls-files -s | sha256sum`},
	{"sqlite with a write-ahead log", `
		sqlite3 db 'pragma journal_mode=wal; create table t(a integer primary key, b text);'
		for j in 1 2 3; do { echo 'begin;'; for i in $(seq 2000); do echo "insert into t(b) values('row $j $i');"; done; echo 'commit;'; } | sqlite3 db; done
		(sqlite3 -cmd '.timeout 60000' db 'update t set b = b || 1 where a % 2 = 0') & sqlite3 -cmd '.timeout 60000' db 'update t set b = b || 1 where a % 2 = 1'; wait
		sqlite3 db 'pragma wal_checkpoint(truncate); pragma integrity_check; vacuum;'; sqlite3 db .dump | sha256sum`},
	{"a virtual environment of Python", `
		python3 -m venv v && v/bin/python -c 'import pip, sys; print(sys.prefix, pip.__version__)'
		find v -not -name '*.pyc' -printf '%P %y %m %l\n' | sort | sha256sum; find v -name '*.py' | sort | xargs cat | sha256sum`},
	{"dpkg installs, upgrades and removes a package", `
		for v in 1 2; do
			mkdir -p p/DEBIAN p/usr/share/dim-work p/etc p/usr/bin
			printf 'Package: dim-work\nVersion: %s\nArchitecture: all\nMaintainer: A <a@b.example>\nDescription: test\n' $v >p/DEBIAN/control
			echo /etc/dim-work.conf >p/DEBIAN/conffiles; echo "conf" >p/etc/dim-work.conf; printf '#!/bin/sh\necho %s\n' $v >p/usr/bin/dim-work; chmod 755 p/usr/bin/dim-work
			for i in $(seq 200); do echo "$v $i" >p/usr/share/dim-work/f$i-$((v * i % 7)); done; ln -f p/usr/share/dim-work/f1-* p/usr/share/dim-work/hard
			dpkg-deb --root-owner-group -b p w$v.deb >/dev/null; rm -r p
		done
		dpkg -i w1.deb >/dev/null; echo mine >>/etc/dim-work.conf; dpkg -i w2.deb >/dev/null 2>&1; dim-work; dpkg -V dim-work || true
		find /usr/share/dim-work /etc/dim-work.conf ! -type d -printf '%p %y %m %n %s\n' | sort | sha256sum; cat /usr/share/dim-work/* | sha256sum
		dpkg -P dim-work >/dev/null; ls /usr/share/dim-work 2>&1 || true; dpkg -l | sha256sum`},
}

// workIn runs its first argument, a script of realWork, in the root that is the working directory.
const workIn = `
	mkdir -p proc dev root/work && mount -t proc proc proc && mount --bind /dev dev
	chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root/work LC_ALL=C PYTHONDONTWRITEBYTECODE=1 sh -ec "umask 022; cd /root/work; $1
		echo done"
	rm -rf root/work/* root/work/.[a-z]*; umount dev proc`

// Real work in a node's root does what it does on a local disk: one root, twice. DIM_LAB_MASTER names an installation with gcc, make, git, rsync, sqlite3
// and python3-venv. The replica is mounted here, by FUSE.
func TestRealWorkGivesWhatItGivesOnALocalDisk(t *testing.T) {
	needLab(t)
	if os.Getenv("DIM_LONG") == "" {
		t.Skip("takes minutes: run `make long`")
	}
	local := t.TempDir()
	have := os.Getenv("DIM_LAB_MASTER")
	if have == "" {
		have = filepath.Join(t.TempDir(), "master")
		var log strings.Builder
		packages := []string{"gcc", "libc6-dev", "make", "git", "rsync", "sqlite3", "python3-venv"}
		if err := lab.BuildMaster(t.Context(), lab.MasterSpec{Dir: have, Packages: packages, Log: &log}); err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
	}
	if out, err := exec.Command("cp", "-a", "--reflink=auto", have+"/.", local).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", have, err, out)
	}
	c := raiseAs(t, t.TempDir(), have, unsharedDescription(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	for _, work := range realWork {
		t.Run(work.name, func(t *testing.T) {
			start := time.Now()
			there, err := throughFUSE(t, c, 9*time.Minute, workIn, work.script)
			must(t, err)
			took := time.Since(start)
			start = time.Now()
			cmd := c.Net.Command(t.Context(), "sh", "-c", workIn, "sh", work.script)
			cmd.Dir = local
			here, err := cmd.CombinedOutput()
			must(t, err)
			t.Logf("%v on a local disk, %v in a replica:\n%s", time.Since(start).Round(time.Millisecond), took.Round(time.Millisecond), here)
			if !strings.HasSuffix(string(here), "done\n") {
				t.Error("it did not come to its end")
			}
			if diff := cmp.Diff(string(here), there); diff != "" {
				t.Errorf("on a local disk (-) and in a replica (+):\n%s", diff)
			}
		})
	}
}

// unsharedDescription is examples/small.xml with all of the image writable.
func unsharedDescription(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("../examples/*.tmpl")
	must(t, err)
	for _, from := range append(files, "../examples/small.xml") {
		text, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(from)), []byte(strings.ReplaceAll(string(text), `<shared  path="/usr"/>`, "")), 0o644))
	}
	return filepath.Join(dir, "small.xml")
}
