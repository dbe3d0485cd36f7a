package timeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
)

var start = time.Unix(1_700_000_000, 0)

// normal are the events of a boot whose kernel takes a time to start, on a link with a speed.
func normal(kernel time.Duration, speed string) []boot.Event {
	var at time.Duration
	var list []boot.Event
	add := func(after time.Duration, stage boot.Stage, detail string) {
		at += after
		list = append(list, boot.Event{Stage: stage, Time: start.Add(at), Detail: detail, Count: 1})
	}
	add(0, boot.StageDHCP, "PXE")
	add(time.Second, boot.StageLoader, "undionly.kpxe by TFTP")
	add(time.Second, boot.StageDHCP, boot.DetailIPXE)
	add(time.Second, boot.StageScript, "compute@1")
	add(time.Second, boot.StageKernel, boot.DetailFetched)
	add(time.Second, boot.StageInitramfs, boot.DetailFetched)
	add(kernel, boot.StageInitramfs, "dim-init runs")
	add(time.Second, boot.StageLink, "the boot card eth0 has a link, "+speed)
	add(time.Second, boot.StageAddress, "10.77.0.11")
	add(time.Second, boot.StageMount, "")
	add(time.Second, boot.StageHandover, "")
	add(time.Second, boot.StageRunning, "")
	return list
}

func TestASlowStepIsFoundAmongNeighbors(t *testing.T) {
	var others []Boot
	for i := range 4 {
		others = append(others, Of(normal(3*time.Second+time.Duration(i)*time.Millisecond, "1000 Mb/s"), time.Time{}))
	}
	for _, test := range []struct {
		name   string
		events []boot.Event
		others []Boot
		want   string
	}{
		{"as fast as the others", normal(4*time.Second, "1000 Mb/s"), others, ""},
		{"slower, but not by much", normal(5900*time.Millisecond, "1000 Mb/s"), others, ""},
		{"slow", normal(41*time.Second, "1000 Mb/s"), others,
			"the fetch of the initramfs and the start of the kernel took 41 s, where 4 nodes of rack 2 took 3.0 s; " +
				"its link may be slow, or the kernel waits for hardware: its console shows which"},
		{"slow, on a slow link", normal(41*time.Second, "100 Mb/s"), others,
			"the fetch of the initramfs and the start of the kernel took 41 s, where 4 nodes of rack 2 took 3.0 s; " +
				"its link has 100 Mb/s, theirs has 1000 Mb/s: look at its cable and its switch port"},
		{"slow, on a fast link", normal(41*time.Second, "10000 Mb/s"), others,
			"the fetch of the initramfs and the start of the kernel took 41 s, where 4 nodes of rack 2 took 3.0 s; " +
				"its link may be slow, or the kernel waits for hardware: its console shows which"},
		{"too few to compare with", normal(41*time.Second, "100 Mb/s"), others[:2], ""},
	} {
		b := Of(test.events, time.Time{})
		b.Compare(test.others)
		f, _ := b.Slowest(test.others, "4 nodes of rack 2")
		if d := cmp.Diff(test.want, strings.Trim(f.Text+"; "+f.Hint, "; ")); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
}

func TestStepsLastUntilTheNextOne(t *testing.T) {
	events := normal(3*time.Second, "1000 Mb/s")
	events[0].Count = 4
	b := Of(events, start.Add(time.Hour))
	var got []string
	for _, s := range b.Steps[:3] {
		got = append(got, fmt.Sprintf("%s %s x%d %v", s.Stage, s.Text, s.Count, s.Took))
	}
	want := []string{"dhcp PXE x4 1s", "loader undionly.kpxe by TFTP x1 1s", "dhcp iPXE x1 1s"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !b.Ran || b.Took != 13*time.Second || b.Steps[11].Took != 0 {
		t.Errorf("the whole boot: %+v", b)
	}
	failing := append(events[:3:3], boot.Event{Stage: boot.StageScript, Time: start.Add(3 * time.Second), Error: "a"},
		boot.Event{Stage: boot.StageScript, Time: start.Add(8 * time.Second), Error: "b", Count: 2})
	b = Of(failing, start.Add(time.Minute))
	if len(b.Steps) != 4 || b.Ran || b.Took != time.Minute || b.Steps[3].Took != 57*time.Second ||
		b.Steps[3].Error != "b" {
		t.Errorf("a boot that hangs: %+v", b)
	}
	if b := Of(nil, start); len(b.Steps) != 0 || b.Took != 0 {
		t.Errorf("no boot: %+v", b)
	}
}

func TestMediansAndSpans(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		list []time.Duration
		want time.Duration
	}{{nil, 0}, {[]time.Duration{5 * s}, 5 * s}, {[]time.Duration{9 * s, s, 2 * s}, 2 * s},
		{[]time.Duration{4 * s, s, 2 * s, 99 * s}, 3 * s}} {
		if got := median(test.list); got != test.want {
			t.Errorf("median of %v: %v", test.list, got)
		}
	}
	for d, want := range map[time.Duration]string{
		140 * time.Millisecond: "140 ms", 3100 * time.Millisecond: "3.1 s", 41 * s: "41 s", 130 * s: "2m10s",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v is %q, not %q", d, got, want)
		}
	}
}
