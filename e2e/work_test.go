package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/e2e/agent"
	"dim/internal/lab"
	"dim/internal/lab/master"
	"dim/internal/testkit"
)

// work is a shell script that runs in a root, in an empty directory. Its output must be the same in every root.
type work struct{ name, script string }

var realWork = []work{
	{"tar of the whole root", `
		tar -C / --sort=name --numeric-owner --one-file-system \
			--exclude=./root --exclude=./etc --exclude=./dev --exclude=./run --exclude=./tmp \
			--exclude=./var/tmp --exclude=./proc --exclude=./sys -cf - . | sha256sum
		tar -C /etc --sort=name --numeric-owner --exclude=./hostname --exclude=./hosts --exclude=./machine-id \
			--exclude=./network --exclude=./fstab --exclude=./systemd -cf - . | tar -tvf - | grep -v '^d.* \./$'`},
	{"rsync", `
		rsync -aHX /usr/lib/python3 /etc/alternatives . && rsync -aHXnic /usr/lib/python3 /etc/alternatives .
		rm -r python3/* && rsync -aHX --delete /usr/lib/python3 . && rsync -aHXnic --delete /usr/lib/python3 .`},
	{"a compilation with make -j", `
		for i in $(seq 30); do echo "int f$i(int x) { return x * $i + ($i > 1 ? 1 : 0); }" >f$i.c; done
		{ for i in $(seq 30); do echo "int f$i(int);"; done
		  echo '#include <stdio.h>'; echo 'int main(void) { int n = 1;'
		  for i in $(seq 30); do echo "n = f$i(n) % 10007;"; done; echo 'printf("%d", n); return 0; }'; } >main.c
		objects=$(for i in $(seq 30); do echo f$i.o; done | tr '\n' ' ')
		printf 'all: prog\nlibf.a: %s\n\tar rcD $@ $^\n' "$objects" >Makefile
		printf 'prog: main.o libf.a\n\t$(CC) -o $@ main.o libf.a\n' >>Makefile
		# A guest's clock differs from this machine's.
		m() { make -j4 2>&1 | grep -v -e 'Clock skew' -e 'in the future' || true; }
		m >/dev/null && ./prog && m && touch f7.c && m && sha256sum prog libf.a`},
	{"git", `
		export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1
		git config --global user.email a@b.example && git config --global user.name A
		git init -q -b main one && cd one && cp -a /usr/lib/python3/dist-packages /etc/pam.d .
		git add -A && git commit -qm one
		for i in $(seq 15); do
			echo $i >>pam.d/other; mv pam.d/login pam.d/l; mv pam.d/l pam.d/login; git commit -qam $i
		done
		cd ..
		git clone -q --no-local one two && cd two && git gc -q --aggressive --prune=now && git fsck --full 2>&1
		git status --short; git rev-parse HEAD; git checkout -q HEAD~5 && git checkout -q main
		git ls-files -s | sha256sum`},
	{"sqlite with a write-ahead log", `
		sqlite3 db 'pragma journal_mode=wal; create table t(a integer primary key, b text);'
		for j in 1 2 3; do
			{
				echo 'begin;'
				for i in $(seq 2000); do echo "insert into t(b) values('row $j $i');"; done
				echo 'commit;'
			} | sqlite3 db
		done
		(sqlite3 -cmd '.timeout 60000' db 'update t set b = b || 1 where a % 2 = 0') &
		sqlite3 -cmd '.timeout 60000' db 'update t set b = b || 1 where a % 2 = 1'; wait
		sqlite3 db 'pragma wal_checkpoint(truncate); pragma integrity_check; vacuum;'; sqlite3 db .dump | sha256sum`},
	{"a virtual environment of Python", `
		python3 -m venv v && v/bin/python -c 'import pip, sys; print(sys.prefix, pip.__version__)'
		find v -not -name '*.pyc' -printf '%P %y %m %l\n' | sort | sha256sum
		find v -name '*.py' | sort | xargs cat | sha256sum`},
	{"dpkg installs, upgrades and removes a package", `
		for v in 1 2; do
			mkdir -p p/DEBIAN p/usr/share/dim-work p/etc p/usr/bin
			printf 'Package: dim-work\nVersion: %s\nArchitecture: all\n' $v >p/DEBIAN/control
			printf 'Maintainer: A <a@b.example>\nDescription: test\n' >>p/DEBIAN/control
			echo /etc/dim-work.conf >p/DEBIAN/conffiles; echo "conf" >p/etc/dim-work.conf
			printf '#!/bin/sh\necho %s\n' $v >p/usr/bin/dim-work; chmod 755 p/usr/bin/dim-work
			for i in $(seq 200); do echo "$v $i" >p/usr/share/dim-work/f$i-$((v * i % 7)); done
			ln -f p/usr/share/dim-work/f1-* p/usr/share/dim-work/hard
			dpkg-deb --root-owner-group -b p w$v.deb >/dev/null; rm -r p
		done
		dpkg -i w1.deb >/dev/null; echo mine >>/etc/dim-work.conf; dpkg -i w2.deb >/dev/null 2>&1
		dim-work; dpkg -V dim-work || true
		find /usr/share/dim-work /etc/dim-work.conf ! -type d -printf '%p %y %m %n %s\n' | sort | sha256sum
		cat /usr/share/dim-work/* | sha256sum
		dpkg -P dim-work >/dev/null; ls /usr/share/dim-work 2>&1 || true; dpkg -l | sha256sum`},
	{"apt-get installs, installs again and purges packages", `
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
		export DEBIAN_FRONTEND=noninteractive
		echo 'deb [trusted=yes] file:` + master.OfflineDir + ` ./' >list
		get() {
			apt-get -o Dir::Etc::SourceList=$PWD/list -o Dir::Etc::SourceParts=- -o DPkg::Use-Pty=0 -qy "$@" \
				>log 2>&1 || { cat log; exit 1; }
		}
		get update; get install ` + strings.Join(offlinePackages, " ") + `
		echo '2^64' | bc; echo '{"a": [1, 2]}' | jq -c .a; echo x | openssl dgst -sha256
		vim.tiny --version | head -1; perl -MDpkg -e 'print "perl\n"'
		get install --reinstall jq less dpkg-dev; get purge tmux cron; get autoremove --purge
		get check; dpkg --audit; dpkg -V jq less dpkg-dev bc vim-tiny || true; dpkg -l; rm /usr/sbin/policy-rc.d`},
}

var (
	workPackages    = []string{"gcc", "libc6-dev", "make", "git", "rsync", "sqlite3", "python3-venv"}
	offlinePackages = []string{"bc", "jq", "tmux", "vim-tiny", "cron", "less", "openssl", "dpkg-dev", "libxml2-utils"}
)

// workIn runs its first argument, a script of realWork, in the root that is the working directory.
const workIn = `
	mkdir -p proc dev root/work && mount -t proc proc proc && mount --bind /dev dev
	chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root/work LC_ALL=C \
		PYTHONDONTWRITEBYTECODE=1 sh -ec "umask 022; cd /root/work; $1
		echo done"
	rm -rf root/work/* root/work/.[a-z]*; umount dev proc`

// Real work in a node's root has the same results as on a local disk. The same root is used three times: on a
// disk, in a replica that is mounted here by FUSE, and in a replica that is the root of a machine, over NFS.
// DIM_WORK_MASTER names an installation that `lab master` has made of workPackages and offlinePackages.
func TestRealWorkGivesTheSameAsOnALocalDisk(t *testing.T) {
	needLab(t)
	if os.Getenv("DIM_LONG") == "" {
		t.Skip("takes minutes: run `make long`")
	}
	local, have := t.TempDir(), workMaster(t)
	if out, err := exec.Command("cp", "-a", "--reflink=auto", have+"/.", local).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v\n%s", have, err, out)
	}
	c := startClusterAs(t, t.TempDir(), have, unsharedDescription(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	node := enterRoot(t, c, "n02")
	for _, w := range realWork {
		t.Run(w.name, func(t *testing.T) {
			cmd := c.Net.Command(t.Context(), "sh", "-c", workIn, "sh", w.script)
			cmd.Dir = local
			took, want := measure(t, func() (string, error) {
				out, err := cmd.CombinedOutput()
				return string(out), err
			})
			t.Logf("%v on a local disk:\n%s", took, want[max(0, len(want)-3000):])
			if !strings.HasSuffix(want, "done\n") {
				t.Error("it did not come to its end")
			}
			for _, there := range []struct {
				where string
				do    func() (string, error)
			}{
				{"over NFS", func() (string, error) { return node.work(w.script) }},
				{"through FUSE", func() (string, error) { return throughFUSE(t, c, 9*time.Minute, workIn, w.script) }},
			} {
				t.Run(there.where, func(t *testing.T) {
					took, got := measure(t, there.do)
					t.Logf("%v", took)
					compareOutput(t, want, got)
				})
			}
		})
	}
}

// workMaster returns a root with the packages that realWork needs.
func workMaster(t *testing.T) string {
	t.Helper()
	if have := os.Getenv("DIM_WORK_MASTER"); have != "" {
		return have
	}
	dir := filepath.Join(t.TempDir(), "master")
	var log strings.Builder
	spec := master.Spec{Dir: dir, Packages: workPackages, Offline: offlinePackages, Log: &log}
	if err := master.Build(t.Context(), spec); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	return dir
}

func measure(t *testing.T, do func() (string, error)) (time.Duration, string) {
	t.Helper()
	start := time.Now()
	out, err := do()
	if err != nil {
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-3000):])
	}
	return time.Since(start).Round(time.Millisecond), out
}

// compareOutput checks that two outputs have the same lines.
func compareOutput(t *testing.T, local, there string) {
	t.Helper()
	if local == there {
		return
	}
	a, b := strings.Split(local, "\n"), strings.Split(there, "\n")
	diff := cmp.Diff(linesOnlyIn(a, b), linesOnlyIn(b, a))
	if diff == "" {
		diff = "the same lines in another order"
	}
	t.Errorf("on a local disk (-) and here (+):\n%s", diff[:min(len(diff), 8000)])
}

// linesOnlyIn returns the lines of a that are not in b.
func linesOnlyIn(a, b []string) (list []string) {
	in := map[string]bool{}
	for _, line := range b {
		in[line] = true
	}
	for _, line := range a {
		if !in[line] {
			list = append(list, line)
		}
	}
	return list
}

// enterRoot boots a machine whose root is its replica, over NFS.
func enterRoot(t *testing.T, c *lab.Cluster, name string) guest {
	t.Helper()
	g := powerOn(t, c, lab.UMLSpec{Name: name, MB: 1024})
	g.mount("/nodes/"+name, "/mnt/root", nfsOptions)
	testkit.Must(t, g.call("Enter", "/mnt/root", &agent.None{}))
	return g
}

// work runs a script in the guest's root, as workIn does.
func (g guest) work(script string) (string, error) {
	g.dropCaches()
	const around = `mkdir -p /root/work /run/lock
		env -i PATH="$PATH" HOME=/root/work LC_ALL=C PYTHONDONTWRITEBYTECODE=1 sh -ec "umask 022; cd /root/work; $1
		echo done" 2>&1
		rm -rf /root/work/* /root/work/.[a-z]*`
	var out agent.Output
	err := g.call("Run", agent.RunArgs{
		Argv:    []string{"/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", around, "sh", script},
		Timeout: 9 * time.Minute,
	}, &out)
	return out.Text, err
}

// unsharedDescription is examples/small.xml with all of the image writable.
func unsharedDescription(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("../examples/*.tmpl")
	testkit.Must(t, err)
	for _, from := range append(files, "../examples/small.xml") {
		text, err := os.ReadFile(from)
		testkit.Must(t, err)
		testkit.Must(t, os.WriteFile(filepath.Join(dir, filepath.Base(from)),
			[]byte(strings.ReplaceAll(string(text), `<shared  path="/usr"/>`, "")), 0o644))
	}
	return filepath.Join(dir, "small.xml")
}
