package coord

import (
	"bufio"
	"dim/internal/testkit"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// etcd reads its whole database into memory when it opens it: at the second start 16 MB, nearly all of it empty.
func TestTheDatabaseStaysOnDisk(t *testing.T) {
	dir := t.TempDir()
	var fs unix.Statfs_t
	testkit.Must(t, unix.Statfs(dir, &fs))
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a temporary directory on a disk: a tmpfs is always in memory")
	}
	testkit.Must(t, open(t, dir).Close())
	info := testkit.Value(os.Stat(dir + "/member/snap/db"))(t)
	c := open(t, dir)
	testkit.Must(t, c.Check(t.Context()))
	resident, size := mapped(t, dir+"/member/snap/db"), info.Size()>>10
	t.Logf("%d of %d kB are resident", resident, size)
	if size < 8<<10 || resident > size/4 {
		t.Errorf("%d of %d kB are resident, want few of many", resident, size)
	}
}

// mapped returns how many kB of a file are in the memory of this process.
func mapped(t *testing.T, path string) int64 {
	t.Helper()
	f := testkit.Value(os.Open("/proc/self/smaps"))(t)
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
			n := testkit.Value(strconv.ParseInt(fields[1], 10, 64))(t)
			sum += n
		}
	}
	if !found {
		t.Fatalf("%s is not mapped", path)
	}
	return sum
}
