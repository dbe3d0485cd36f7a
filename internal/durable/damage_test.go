package durable

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// writeLog makes a log of some records. It returns its path, the records and its bytes.
func writeLog(t *testing.T, count int) (path string, want []string, whole []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "log")
	l, _ := records(t, path)
	for i := range count {
		r := fmt.Sprintf(`{"kind":"record","number":%d}`, i)
		if err := l.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
		want = append(want, r)
	}
	l.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, want, whole
}

func TestOneWrongBitAnywhereIsPutRight(t *testing.T) {
	path, want, whole := writeLog(t, 3)
	for bit := range len(whole) * 8 {
		bad := slices.Clone(whole)
		bad[bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		l, got := records(t, path)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("bit %d: %s", bit, diff)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, whole) {
			t.Fatalf("bit %d: the file was not put right", bit)
		}
		if kept, err := os.ReadFile(l.DamagedCopy()); err != nil || !bytes.Equal(kept, bad) {
			t.Fatalf("bit %d: copy of the damaged file: %v", bit, err)
		}
		os.Remove(l.DamagedCopy())
		l.Close()
	}
}

func TestDamageLosesNoLaterRecord(t *testing.T) {
	path, want, whole := writeLog(t, 5)
	size := len(whole) / 5
	for at := range 4 * size { // the end of the file may be incomplete
		bad := slices.Clone(whole)
		for i := range 3 {
			bad[at+i] ^= 0xa5
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		l, got := records(t, path)
		l.Close()
		first, last := at/size, (at+2)/size
		var lost []string
		lost = append(append(append(lost, want[:first]...), "damage"), want[last+1:]...)
		if diff := cmp.Diff(lost, got); diff != "" {
			t.Fatalf("3 bytes at %d: %s", at, diff)
		}
		if kept, err := os.ReadFile(l.DamagedCopy()); err != nil || !bytes.Equal(kept, bad) {
			t.Fatalf("3 bytes at %d: copy of the damaged file: %v", at, err)
		}
		os.Remove(l.DamagedCopy())
	}
}

func TestTheEndOfALog(t *testing.T) {
	path, want, whole := writeLog(t, 2)
	half := len(whole) / 2
	lastZero := slices.Clone(whole)
	clear(lastZero[half:])
	big := append(slices.Clone(whole), EncodeRecord(bytes.Repeat([]byte{'x'}, 3*sectorSize))...)
	clear(big[2*sectorSize : 3*sectorSize])
	lastDamaged := slices.Clone(whole)
	copy(lastDamaged[len(whole)-4:], "????")
	for name, c := range map[string]struct {
		file []byte
		want []string
	}{
		"zeros are no record":                    {append(slices.Clone(whole), make([]byte, 8)...), want},
		"many zeros are no records":              {append(slices.Clone(whole), make([]byte, 4096)...), want},
		"a record that was not written":          {lastZero, want[:1]},
		"a record of which a block is not there": {big, want},
		"a last record that is there is damage":  {lastDamaged, append(slices.Clone(want[:1]), "damage")},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			l, got := records(t, path)
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
			if err := l.Append([]byte("after")); err != nil {
				t.Error(err)
			}
			l.Close()
			l, got = records(t, path)
			l.Close()
			if got[len(got)-1] != "after" {
				t.Errorf("after an append: %q", got)
			}
		})
	}
}

// TestAnAppendThatLostSomeSectorsIsNoDamage has a power cut lose any of the sectors of the last record. The size of the
// file is the new one: another file's sync may have made it durable first.
func TestAnAppendThatLostSomeSectorsIsNoDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for near := range 24 { // where the last record begins, from a sector's boundary
		first := EncodeRecord(bytes.Repeat([]byte{'a'}, 2*sectorSize-16+near-recordHeader))
		for _, size := range []int{3, 40, 255, 256, 300, sectorSize, 3 * sectorSize} {
			last := EncodeRecord(bytes.Repeat([]byte{'b'}, size))
			from, to := len(first)/sectorSize, (len(first)+len(last)-1)/sectorSize
			for lost := 1; lost < 1<<(to-from+1); lost++ {
				file := append(slices.Clone(first), last...)
				for i := len(first); i < len(file); i++ {
					if lost>>(i/sectorSize-from)&1 != 0 {
						file[i] = 0
					}
				}
				checkEnd(t, path, file, first, last)
				if t.Failed() {
					t.Fatalf("a record of %d bytes at %d, lost sectors %b", size, len(first), lost)
				}
			}
		}
	}
}

// checkEnd checks that a file has the first record, no damage, and nothing else but perhaps the last record: nothing of
// it is lost if all that is lost is zeros, or one bit.
func checkEnd(t *testing.T, path string, file, first, last []byte) {
	t.Helper()
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	want := [][]byte{first[recordHeader:], last[recordHeader:]}
	count := 0
	_, err := ReadLog(path, func(r Record) error {
		if count >= len(want) || !bytes.Equal(r.Data, want[count]) {
			t.Errorf("%d bytes at %d are no record that was appended", len(r.Data), r.At)
		}
		count++
		return nil
	})
	if err != nil || count == 0 {
		t.Errorf("%d records, %v", count, err)
	}
}

func TestALogTakesNoEmptyRecord(t *testing.T) {
	l, _ := records(t, filepath.Join(t.TempDir(), "log"))
	defer l.Close()
	if err := l.Append(nil); err == nil {
		t.Error("an empty record was appended")
	}
}

// FuzzOpenLog changes bytes in the middle of a log. All records before and after them must be read, and reading the
// log again must give the same.
func FuzzOpenLog(f *testing.F) {
	f.Add(uint16(3), []byte{0, 0, 0, 1, 0, 0, 0, 0})
	f.Add(uint16(40), []byte{3, 3, 3, 3, 3, 3, 3, 3, 3})
	f.Add(uint16(60), make([]byte, 600))
	f.Fuzz(func(t *testing.T, at uint16, noise []byte) {
		path, want, whole := writeLog(t, 6)
		size := len(whole) / 6
		first := int(at) % (4 * size)
		noise = noise[:min(len(noise), 4*size-first)]
		copy(whole[first:], noise)
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		l, got := records(t, path)
		l.Close()
		before, after := want[:first/size], want[5:]
		if len(got) < len(before)+len(after) || !slices.Equal(got[:len(before)], before) ||
			!slices.Equal(got[len(got)-len(after):], after) {
			t.Fatalf("read %q", got)
		}
		l, again := records(t, path)
		l.Close()
		if diff := cmp.Diff(got, again); diff != "" {
			t.Error(diff)
		}
	})
}
