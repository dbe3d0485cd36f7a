package capture

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dim/internal/image"
	"dim/internal/testkit"
)

// damage changes a byte of each object of the store.
func (l *lab) damage(objects ...string) {
	l.t.Helper()
	for _, o := range objects {
		path := filepath.Join(l.store.Dir(), o)
		b, err := os.ReadFile(path)
		testkit.Must(l.t, err, os.Chmod(path, 0o600))
		b[len(b)/2] ^= 0xff
		testkit.Must(l.t, os.WriteFile(path, b, 0o600))
	}
}

// object is the path of an object in the store.
func object(kind string, d image.Digest) string {
	return fmt.Sprintf("%s/%s/%s", kind, d.String()[:2], d)
}

// repaired checks that a capture has replaced just these objects, made no version, and left nothing damaged.
func (l *lab) repaired(r Result, objects ...string) {
	l.t.Helper()
	if r.Changed {
		l.t.Error("there is a new version")
	}
	told := ""
	count := 0
	for _, p := range r.Problems {
		if p.Kind == Damaged {
			told += p.Err.Error() + "\n"
			count++
		}
	}
	for _, o := range objects {
		if !strings.Contains(told, o) {
			l.t.Errorf("of %s it says nothing", o)
		}
	}
	if count != len(objects) {
		l.t.Errorf("it says that these were damaged:\n%s", told)
	}
	if len(objects) > 0 {
		l.sound()
	}
}

func TestACaptureThatReadsEverythingPutsDamageRight(t *testing.T) {
	l := newLab(t)
	for i := range 30 {
		l.write(fmt.Sprint("d/f", i), fmt.Sprint("content ", i))
	}
	l.write("large", strings.Repeat("large ", 100_000))
	v := l.capture().Version
	entries := l.entries(v)
	damaged := []string{
		object("blobs", entries["d/f3"].Digest), object("blobs", entries["large"].Digest),
		object("trees", entries["d"].Digest), object("trees", v.Root.Digest), object("trees", v.Digest),
	}
	l.damage(damaged...)
	l.o.Reread = true
	l.repaired(l.capture(), damaged...)
	l.repaired(l.capture())
}

func TestAFileThatIsReadAgainPutsDamageRight(t *testing.T) {
	l := newLab(t)
	l.write("a", "content")
	v := l.capture().Version
	blob := object("blobs", l.entries(v)["a"].Digest)
	l.damage(blob)
	before := testkit.Value(os.Stat(l.path("a")))(t)
	testkit.Must(t, os.Chtimes(l.path("a"), time.Now(), before.ModTime())) // another ctime
	l.repaired(l.capture(), blob)
}

func TestACaptureOfAnArchivePutsDamageRight(t *testing.T) {
	testkit.NeedRoot(t, "owners")
	l := newLab(t)
	l.write("d/a", "content")
	master := l.withMaster("tar:" + l.tarOf())
	v := master.capture().Version
	entries := master.entries(v)
	damaged := []string{object("blobs", entries["d/a"].Digest), object("trees", entries["d"].Digest)}
	master.damage(damaged...)
	master.o.Reread = true
	master.repaired(master.capture(), damaged...)
}

func TestManyDamagedObjectsAreTold(t *testing.T) {
	l := newLab(t)
	var damaged []string
	for i := range maxDamaged + 5 {
		text := fmt.Sprint("content ", i)
		l.write(fmt.Sprint("f", i), text)
		damaged = append(damaged, object("blobs", image.Sum([]byte(text))))
	}
	l.capture()
	l.damage(damaged...)
	l.o.Reread = true
	r := l.capture()
	if last := r.Problems[len(r.Problems)-1]; len(r.Problems) != maxDamaged+1 || last.Err.Error() != "and 5 more" {
		t.Errorf("%d problems, the last is %v", len(r.Problems), last)
	}
	l.sound()
}
