package procstat

import (
	"net/netip"
	"os"
	"testing"
)

func TestWhatThisProcessUsesIsCounted(t *testing.T) {
	before, err := ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	own := CPUTime(os.Getpid())
	for n := 0; CPUTime(os.Getpid()) < own+0.1; n++ {
		if n > 1e9 {
			t.Fatal("the CPU time does not grow")
		}
	}
	after, err := ReadMachine()
	if err != nil {
		t.Fatal(err)
	}
	// Both are counted in ticks, at other moments.
	if got := after.CPU - before.CPU; got < 0.05 {
		t.Errorf("this process used 0.1 s, and the machine %v", got)
	}
	if after.Sent < before.Sent || after.Received < before.Received {
		t.Errorf("%+v, then %+v", before, after)
	}
	if Memory() < 1<<20 {
		t.Errorf("this process has %d bytes", Memory())
	}
	if got := CPUTime(1 << 30); got != 0 {
		t.Errorf("no process used %v s", got)
	}
}

func TestADiskThatIsNotCountedIsTold(t *testing.T) {
	if _, ok := ReadDisk("/proc"); ok {
		t.Error("/proc has a disk")
	}
	if _, ok := ReadDisk("/no/such/path"); ok {
		t.Error("what is not there has a disk")
	}
	if got := LinkSpeed(netip.MustParseAddr("192.0.2.1")); got != 0 {
		t.Errorf("an address that no interface has: %d bit/s", got)
	}
}
