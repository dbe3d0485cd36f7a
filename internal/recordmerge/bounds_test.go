package recordmerge

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// maxPeak bounds the memory of one merge in bytes, of whatever three files. docs/guide/security.md names it.
const maxPeak = 512 << 20

// lineCost is what the longest line may cost in bytes, which is as long in small files.
const lineCost = 64 << 20

// part is the part of the largest files with which the test is made, unless DIM_LONG is set.
const part = 8

// worst returns files of a size and a number of records that are made to cost much: records that are all in conflict,
// lists of members that are as long as a line may be, one record that fills the file.
func worst(size, records int) map[string]func(side byte) (Format, []byte) {
	repeat := func(f Format, line func(i int, side byte) string) func(byte) (Format, []byte) {
		return func(side byte) (Format, []byte) {
			var b bytes.Buffer
			for i := 0; i < records; i++ {
				l := line(i, side)
				if b.Len()+len(l) > size {
					break
				}
				b.WriteString(l)
			}
			return f, b.Bytes()
		}
	}
	members := func(i int, side byte) string {
		m := fmt.Sprintf("%c%d,", 'a'+side, i)
		return strings.Repeat(m, (maxLine-100)/len(m))
	}
	distinct := func(i int, side byte) string {
		var b strings.Builder
		for n := 0; b.Len() < maxLine-100; n++ {
			fmt.Fprintf(&b, "%c%x,", 'a'+side, n)
		}
		return b.String()
	}
	return map[string]func(byte) (Format, []byte){
		"accounts in conflict": repeat(Passwd, func(i int, side byte) string {
			return fmt.Sprintf("u%d:x:%d:%d:%s:/:/bin/sh%d\n", i, i%1000, i, strings.Repeat("x", 100), side)
		}),
		"groups with one member many times": repeat(Group, func(i int, side byte) string {
			return fmt.Sprintf("g%d:x:%d:%s\n", i, i, members(i, side))
		}),
		"groups with many members": repeat(Group, func(i int, side byte) string {
			return fmt.Sprintf("g%d:x:%d:%s\n", i, i, distinct(i, side))
		}),
		"lines of NIS": repeat(Group, func(i int, side byte) string {
			return fmt.Sprintf("+%d%s%d\n", i, strings.Repeat(":", maxLine-100), side)
		}),
		"ranges of one name": repeat(SubID, func(i int, _ byte) string { return fmt.Sprintf("u:%d:65536\n", i) }),
		"ranges that overlap": repeat(SubID, func(i int, side byte) string {
			return fmt.Sprintf("u%d%d:1:%d\n", side, i, 4_000_000_000-i)
		}),
		"packages": repeat(Dpkg, func(i int, side byte) string {
			return fmt.Sprintf("Package: p%d\nVersion: %d\nDescription: %s\n\n", i, side, strings.Repeat("x", 110))
		}),
		"one package many times": repeat(Dpkg, func(i int, side byte) string {
			return fmt.Sprintf("Package: p\nVersion: %d\nArchitecture: a%d\n\n", side, i)
		}),
		"one package with short lines": repeat(Dpkg, func(i int, side byte) string {
			return fmt.Sprintf("Package: p%d\nVersion: %d\n%s\n", i, side, strings.Repeat(" \n", size/2-100))
		}),
		"long keys": repeat(LineKey, func(i int, side byte) string {
			return fmt.Sprintf("%s%d=%d\n", strings.Repeat("k", maxLine-100), i, side)
		}),
		"comments": repeat(LineKey, func(i int, side byte) string {
			return fmt.Sprintf("# %d %d %s\n", side, i, strings.Repeat("x", 140))
		}),
		"one key many times": repeat(LineKey, func(i int, side byte) string {
			return fmt.Sprintf("k=%d %d %s\n", side, i, strings.Repeat("x", 140))
		}),
		"empty lines": repeat(LineKey, func(int, byte) string { return "\n" }),
		"diversions": repeat(Diversions, func(i int, side byte) string {
			return fmt.Sprintf("/%d\n/%d%s\n:\n", i, side, strings.Repeat("x", 140))
		}),
	}
}

// TestNoFilesTakeMuchMemory merges the worst files that are known. The collector is made to run often, so that what the
// runtime has got from the kernel is hardly more than what was in use at one time. On a machine with much else to do it
// comes late, and more is in use: then the merge is done again, since what it needs is the least of several times.
func TestNoFilesTakeMuchMemory(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	p := part
	if os.Getenv("DIM_LONG") != "" {
		p = 1
	}
	for name, side := range worst(MaxSize/p, maxRecords/p) {
		t.Run(name, func(t *testing.T) {
			format, old := side(0)
			_, own := side(1)
			_, next := side(2)
			most := uint64(maxPeak)
			if p > 1 {
				most = maxPeak/uint64(p) + lineCost
			}
			for range 5 {
				if peakOfMerge(t, format, Files{Old: old, Own: own, New: next}) <= most {
					return
				}
			}
			t.Errorf("each time more than %d MiB", most>>20)
		})
	}
}

// peakOfMerge returns the most bytes of heap that a merge took.
func peakOfMerge(t *testing.T, format Format, f Files) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	debug.FreeOSMemory()
	runtime.ReadMemStats(&before)
	r, err := Merge(format, f)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatalf("these files do not merge, and show nothing: %v", err)
	}
	peak := after.HeapSys - after.HeapReleased
	t.Logf("%d + %d + %d bytes, result %d: %d MiB allocated, heap of %d MiB", len(f.Old), len(f.Own), len(f.New),
		len(r.Content), (after.TotalAlloc-before.TotalAlloc)>>20, peak>>20)
	return peak
}
