package coord

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// etcd reads its whole file into memory when it opens it: at the second start that is 16 MB, nearly all of it empty.
func TestTheDatabaseStaysOnDisk(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a temporary directory on a disk: what is in memory alone cannot leave it")
	}
	must(t, open(t, dir).Close())
	info, err := os.Stat(dir + database)
	must(t, err)
	c := open(t, dir)
	must(t, c.Check(t.Context()))
	resident, size := mapped(t, dir+database), info.Size()>>10
	t.Logf("%d of %d kB are resident", resident, size)
	if size < 8<<10 || resident > size/4 {
		t.Errorf("%d of %d kB are resident, want few of many", resident, size)
	}
}

// mapped tells how many kB of a file are in this process's memory.
func mapped(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	must(t, err)
	defer f.Close()
	here, found := false, false
	var sum int64
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case strings.Contains(fields[0], "-"):
			here = fields[len(fields)-1] == path
			found = found || here
		case here && fields[0] == "Rss:":
			n, err := strconv.ParseInt(fields[1], 10, 64)
			must(t, err)
			sum += n
		}
	}
	if !found {
		t.Fatalf("%s is not mapped", path)
	}
	return sum
}
