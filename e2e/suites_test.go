package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"dim/e2e/agent"
	"dim/internal/testkit"
)

// Published test suites for file systems, run on a replica through a kernel's NFS client. DIM_SUITES names a
// directory with the results of their builds: pjdfstest/ and cthon04/ as in their sources, and the programs fsx
// and fsstress. A suite that is missing there is skipped. The guest runs them with the programs of this
// machine.
//
// There are three directories, each with its own guest: one of the version, one that the node made, and one of
// the version in which the node has written. pjdfstest, by far the longest, is divided among the three.
func TestTheSuitesOfOthersPass(t *testing.T) {
	suites, master := suitesAndMaster(t)
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	for i, place := range []string{"version", "layer", "half"} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			s := suiteRun{guest: startGuest(t, c, fmt.Sprintf("n%02d", i+1), map[string]string{
				"bin/busybox": "/bin/busybox",
			}), suites: suites, dir: "/mnt/root/srv/" + place}
			s.bindPrograms()
			s.prepare(place)
			for _, suite := range []struct {
				needs string
				run   func(s suiteRun)
			}{
				{"cthon04", suiteRun.connectathon}, {"fsx", suiteRun.fsx}, {"fsstress", suiteRun.fsstress},
				{"pjdfstest", suiteRun.pjdfstest},
			} {
				if !exists(filepath.Join(suites, suite.needs)) {
					continue
				}
				t.Run(suite.needs, func(t *testing.T) {
					suite.run(suiteRun{guest: guest{s.UML, t}, suites: suites, dir: s.dir})
				})
			}
		})
	}
}

// suitesAndMaster returns the directory of the suites and a master to test them on.
func suitesAndMaster(t *testing.T) (suites, master string) {
	t.Helper()
	if suites = os.Getenv("DIM_SUITES"); suites == "" {
		t.Skip("DIM_SUITES names no directory with built suites")
	}
	needLab(t)
	suites, err := filepath.Abs(suites)
	testkit.Must(t, err)
	master = smallMaster(t)
	for _, place := range []string{"version", "half"} {
		tree(t, master, map[string]string{"srv/" + place + "/d/file": pattern("master", 100_000),
			"srv/" + place + "/fsx": pattern("master", 50_000)})
	}
	return suites, master
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// suiteRun runs suites in one directory of a guest.
type suiteRun struct {
	guest
	suites, dir string
}

// bindPrograms lets the guest use this machine's programs, read-only.
func (s suiteRun) bindPrograms() {
	const script = `set -e; cd /; b=/bin/busybox
		for d in usr etc; do $b mkdir -p $d; $b mount -t hostfs -o ro,/$d none /$d; done
		$b mkdir -p suites; $b mount -t hostfs -o ro,"$1" none /suites
		$b ln -s usr/lib /lib; $b ln -s usr/lib64 /lib64; for p in sh bash; do $b ln -s /usr/bin/$p /bin/$p; done`
	out := s.run(agent.RunArgs{Argv: []string{"/bin/busybox", "sh", "-c", script, "sh", s.suites},
		Timeout: time.Minute})
	if out.Exit != 0 {
		s.t.Fatalf("lend programs: %s", out.Text)
	}
}

func (s suiteRun) run(r agent.RunArgs) (out agent.Output) {
	s.t.Helper()
	testkit.Must(s.t, s.call("Run", r, &out))
	return out
}

// sh runs a shell script in the directory.
func (s suiteRun) sh(script string) agent.Output {
	s.t.Helper()
	return s.run(agent.RunArgs{
		Argv: []string{"/usr/bin/env", "PATH=/usr/sbin:/usr/bin:/bin", "HOME=/tmp", "sh", "-c", script}, Dir: s.dir,
		Timeout: 9 * time.Minute,
	})
}

// passes checks that a script ends with exit code 0 and prints the text says.
func (s suiteRun) passes(what, script, says string) {
	s.t.Helper()
	start := time.Now()
	out := s.sh(script)
	s.t.Logf("%s: exit code %d after %v", what, out.Exit, time.Since(start).Round(time.Second))
	if out.Exit != 0 || !strings.Contains(out.Text, says) {
		s.t.Errorf("%s:\n%s", what, out.Text[max(0, len(out.Text)-3000):])
	}
}

// prepare makes the directory what its name says.
func (s suiteRun) prepare(place string) {
	switch place {
	case "layer":
		testkit.Must(s.t, s.call("Mkdir", agent.PathArgs{Path: s.dir}, &agent.None{}))
	case "half":
		s.write(s.dir+"/own", "the node's own")
		s.write(s.dir+"/d/own", "the node's own")
	}
}

func (s suiteRun) fsx() {
	s.passes("fsx", "/suites/fsx -N 20000 -S 7 -P /tmp fsx", "All 20000 operations completed")
}

// fsstress does not report what it did. What it left must look the same from the server as from the cache.
func (s suiteRun) fsstress() {
	const script = `
		mkdir -p d && /suites/fsstress -d $PWD/d -n 400 -p 4 -s 11 >/tmp/fsstress 2>&1 ||
			{ tail -20 /tmp/fsstress; exit 1; }
		list() { find d -printf '%p %y %m %U %G %s %n %i %l %T@\n' | sort; }
		# The files are sparse, up to 2^63 bytes.
		sums() { find d -type f -print0 | sort -z | xargs -0 head -c 500000 | sha256sum; }
		list >/tmp/before; sums >>/tmp/before
		sync; echo 3 >/proc/sys/vm/drop_caches
		list >/tmp/after; sums >>/tmp/after
		cmp /tmp/before /tmp/after || { diff /tmp/before /tmp/after | head -20; exit 1; }
		rm -r d && wc -l </tmp/after && echo same`
	s.passes("fsstress", script, "same")
}

func (s suiteRun) connectathon() {
	for _, part := range []string{"b", "g", "s", "l"} {
		s.passes("connectathon -"+part, "cd /suites/cthon04 && sh runtests -"+part+" -f "+s.dir+"/cthon 2>&1",
			"All tests completed")
	}
}

// inherent has the files with one assertion that NFSv3 cannot meet, each with the reason.
var inherent = map[string]string{
	"unlink/14":    "a file that is open when its last name goes has one more name for its client",
	"utimensat/09": "times have 32 bits",
}

// fewForks replaces three functions of pjdfstest's harness. A fork of a shell takes 70 ms in a guest, and the
// original functions fork six times for an assertion and hundreds of times for the longest path. The program
// that makes the calls, its arguments and the expected results are unchanged.
const fewForks = `
expect() {
	local wanted="$1" got= line verdict="not ok"
	shift
	$fstest $* >/run/answer 2>/dev/null
	while read -r line; do got="$line"; done </run/answer
	[ "$got" != "$wanted" ] && ! echo "$got" | grep -Eqx "$wanted" || verdict=ok
	echo "$verdict $ntest${todomsg:+ # TODO $todomsg} ($*: $got for $wanted)"
	ntest=$((ntest + 1)) todomsg=
}
random() { read -r random </proc/sys/kernel/random/uuid; }
namegen() { random; echo "pjdfstest_$random"; }
namegen_len() {
	local name=
	until [ ${#name} -ge $1 ]; do random; name="$name$random"; done
	printf "%.$1s" "$name"
}
`

// pjdfstest runs the suite file by file, so that -run can name some, as in version/pjdfstest/rename/0.
func (s suiteRun) pjdfstest() {
	out := s.sh("mkdir /tmp/pjdfstest && cp -r /suites/pjdfstest/pjdfstest /suites/pjdfstest/tests /tmp/pjdfstest")
	if out.Exit != 0 {
		s.t.Fatalf("copy pjdfstest: %s", out.Text)
	}
	text, err := os.ReadFile(filepath.Join(s.suites, "pjdfstest/tests/misc.sh"))
	testkit.Must(s.t, err)
	s.write("/tmp/pjdfstest/tests/misc.sh", string(text)+fewForks)
	files, err := filepath.Glob(filepath.Join(s.suites, "pjdfstest/tests/*/*.t"))
	testkit.Must(s.t, err)
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file)) + "/" + strings.TrimSuffix(filepath.Base(file), ".t")
		s.t.Run(name, func(t *testing.T) {
			s := suiteRun{guest: guest{s.UML, t}, suites: s.suites, dir: s.dir}
			start := time.Now()
			const script = `export PATH=/usr/sbin:/usr/bin:/bin; mkdir pjd && cd pjd &&
				/bin/busybox sh /tmp/pjdfstest/tests/$1.t 2>&1; cd .. && rm -r pjd`
			out := s.run(agent.RunArgs{Argv: []string{"/bin/busybox", "sh", "-c", script, "sh", name}, Dir: s.dir,
				Timeout: 9 * time.Minute})
			n, faults := tap(out.Text)
			t.Logf("%d assertions in %v", n, time.Since(start).Round(time.Second))
			if why := inherent[name]; why != "" && len(faults) == 1 {
				t.Skipf("%s: %q", why, faults)
			}
			if len(faults) > 0 {
				t.Errorf("%q", faults)
			}
		})
	}
}

// tap counts the assertions in output of the Test Anything Protocol, and returns those that failed.
func tap(out string) (n int, faults []string) {
	plan := -1
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "1.."):
			plan, _ = strconv.Atoi(line[3:])
		case strings.HasPrefix(line, "not ok") && !strings.Contains(line, "# TODO"):
			faults = append(faults, line)
			n++
		case strings.HasPrefix(line, "ok"), strings.HasPrefix(line, "not ok"):
			n++
		}
	}
	if n != plan {
		faults = append(faults, fmt.Sprintf("%d assertions, planned were %d: %s", n, plan, out[max(0, len(out)-300):]))
	}
	return n, faults
}

// checkProve checks that the output of prove has no failure.
func checkProve(t *testing.T, what, out string) {
	t.Helper()
	at := strings.LastIndex(out, "Files=")
	if at < 0 {
		t.Errorf("%s did not end:\n%s", what, out[max(0, len(out)-3000):])
		return
	}
	t.Logf("%s: %s", what, out[at:])
	failed := regexp.MustCompile(`tests/(\w+/\w+)\.t +\(Wstat: (.*) Tests: \d+ Failed: (\d+)\)`)
	for _, m := range failed.FindAllStringSubmatch(out, -1) {
		if passed := m[2] == "0" && m[3] == "0"; !passed { // prove lists what passes unexpectedly, too
			t.Errorf("%s: %s", what, m[0])
		}
	}
}

// The same suites without NFS. What fails here is a fault of the replica.
func TestTheSuitesOfOthersPassThroughFUSE(t *testing.T) {
	suites, master := suitesAndMaster(t)
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	out, err := throughFUSE(t, c, 15*time.Minute,
		`cd srv/version; mkdir pjd; cd pjd; prove -q -r "$1"/pjdfstest/tests 2>&1; cd ..
		"$1"/fsx -N 100000 -S 7 -P /tmp fsx | tail -1; rm -f fsx
		mkdir s; "$1"/fsstress -d "$PWD"/s -n 400 -p 4 -s 11 >/dev/null 2>&1 && rm -r s &&
		echo fsstress ended well`, suites)
	checkProve(t, "pjdfstest", out)
	if err != nil || !strings.Contains(out, "All 100000 operations completed") ||
		!strings.Contains(out, "fsstress ended well") {
		t.Errorf("%v\n%s", err, out[max(0, len(out)-3000):])
	}
}

func TestFailuresOfASuiteAreDetected(t *testing.T) {
	for _, tc := range []struct {
		out       string
		n, faults int
	}{
		{"1..2\nok 1\nok 2\n", 2, 0},
		{"1..2\nok 1\nnot ok 2 (x: EPERM for 0)\n", 2, 1},
		{"1..2\nok 1\nnot ok 2 (x: EPERM for 0) # TODO known\n", 2, 0},
		{"1..2\nok 1\n", 1, 1},
		{"sh: 1: not found\n", 0, 1},
	} {
		if n, faults := tap(tc.out); n != tc.n || len(faults) != tc.faults {
			t.Errorf("%q: %d assertions and %q, want %d and %d faults", tc.out, n, faults, tc.n, tc.faults)
		}
	}
}
