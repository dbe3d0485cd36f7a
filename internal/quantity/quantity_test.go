package quantity

import (
	"math"
	"testing"
)

func TestNumbersAreWrittenInGroups(t *testing.T) {
	for want, n := range map[string]int64{
		"0": 0, "7": 7, "999": 999, "1,000": 1000, "90,000": 90_000, "1,234,567": 1_234_567, "-1": -1, "-999": -999,
		"-1,000": -1000, "-9,223,372,036,854,775,808": math.MinInt64,
	} {
		if got := Count(n); got != want {
			t.Errorf("%d becomes %q, want %q", n, got, want)
		}
	}
	if got, want := Count(uint64(math.MaxUint64)), "18,446,744,073,709,551,615"; got != want {
		t.Errorf("the largest number becomes %q, want %q", got, want)
	}
	if one, more := Plural(1, "node"), Plural(4000, "node"); one != "1 node" || more != "4,000 nodes" {
		t.Errorf("%q and %q", one, more)
	}
}

func TestSizesAreInPowersOf1024(t *testing.T) {
	for want, n := range map[string]uint64{
		"0 B": 0, "1023 B": 1023, "1.0 KiB": 1024, "1.5 KiB": 1536, "1.0 MiB": 1<<20 - 1, "12.0 GiB": 12 << 30,
		"16.0 EiB": math.MaxUint64,
	} {
		if got := Size(n); got != want {
			t.Errorf("%d becomes %q, want %q", n, got, want)
		}
	}
}
