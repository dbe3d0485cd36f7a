package liveness

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/testkit"
)

// reportSteps reports a boot's steps, "stage detail" each, one second apart.
func reportSteps(tr *Tracker, steps ...string) {
	for _, s := range steps {
		stage, detail, _ := strings.Cut(s, " ")
		tr.Report("n01", boot.Event{Stage: boot.Stage(stage), Detail: detail})
		time.Sleep(time.Second)
	}
}

func TestABootThatDoesNotGoOnIsInTrouble(t *testing.T) {
	const pxe, ipxe = "dhcp PXE, BIOS", "dhcp iPXE"
	for _, tt := range []struct {
		name, steps string // separated by semicolons
		limit       time.Duration
		want        string
	}{
		{"nothing after the address", pxe, 2 * time.Minute, "fetches no boot loader"},
		{"a loader that does not start", pxe + ";loader snponly.efi by TFTP", 2 * time.Minute,
			"snponly.efi, which does not start"},
		{"a loader that fetches nothing", pxe + ";loader x;" + ipxe, 2 * time.Minute, "does not fetch its script"},
		{"nothing after the script", ipxe + ";script", 2 * time.Minute, "does not fetch the kernel"},
		{"nothing after the kernel", ipxe + ";script;kernel fetched by the loader", 3 * time.Minute,
			"fetched the kernel, and nothing came"},
		{"nothing after the initramfs", ipxe + ";script;kernel;initramfs fetched by the loader", 3 * time.Minute,
			"its dim-init never reported"},
		{"no card", ipxe + ";script;initramfs dim-init runs on kernel 6.1", 2 * time.Minute, "finds no network card"},
		{"no address", ipxe + ";script;link eth0 is up", 2 * time.Minute, "“eth0 is up”"},
		{"nothing after the mount", ipxe + ";script;mount", 2 * time.Minute, "its init was not started"},
		{"nothing after the handover", ipxe + ";script;handover", 2 * time.Minute, "makes no call"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := discardingTracker()
				reportSteps(tr, strings.Split(tt.steps, ";")...)
				time.Sleep(tt.limit - 2*time.Second)
				if got := tr.State("n01").Trouble; got != (Trouble{}) {
					t.Errorf("before its time is over: %q", got.Text)
				}
				time.Sleep(time.Second)
				if got := tr.State("n01").Trouble; !strings.Contains(got.Text, tt.want) || got.Hint == "" {
					t.Errorf("afterwards: %q, hint %q; want %q", got.Text, got.Hint, tt.want)
				}
				tr.Report("n01", boot.Event{Stage: boot.StageAddress})
				if got := tr.State("n01").Trouble; got != (Trouble{}) {
					t.Errorf("when the boot goes on: %q", got.Text)
				}
				tr.Called("n01", time.Now().Add(time.Hour))
				time.Sleep(time.Hour)
				if got := tr.State("n01").Trouble; got != (Trouble{}) {
					t.Errorf("when the node runs: %q", got.Text)
				}
			})
		})
	}
}

func TestTimeLimitsGrowWithTheNodesThatBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		for i := range 600 {
			tr.Report(cluster.NodeName(fmt.Sprint("n", i)), boot.Event{Stage: boot.StageKernel})
		}
		reportSteps(tr, "script", "kernel")
		time.Sleep(9 * time.Minute)
		tr.countBooting()
		if got := tr.State("n01").Trouble; got != (Trouble{}) {
			t.Errorf("with 600 others: %q", got.Text)
		}
		time.Sleep(time.Minute) // the others' boots have broken off
		tr.countBooting()
		if got := tr.State("n01").Trouble; got.Text == "" {
			t.Error("alone it is in no trouble")
		}
	})
}

func TestFirmwareThatStartsNothingIsInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := discardingTracker()
		expect := func(when, want string) {
			t.Helper()
			got := tr.State("n01").Trouble.Text
			if want == "" && got != "" || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", when, got, want)
			}
		}
		for range 10 {
			reportSteps(tr, "dhcp PXE", "loader snponly.efi by TFTP", "loader snponly.efi by TFTP")
			time.Sleep(17 * time.Second)
		}
		expect("a loader that is fetched again and again",
			"has fetched 10 boot loaders (last snponly.efi) and starts none")
		reportSteps(tr, "dhcp iPXE")
		expect("when it starts", "")
		for range 2 {
			reportSteps(tr, "script pxelinux", "kernel fetched by the loader")
			time.Sleep(20 * time.Second)
			expect("before the third boot", "")
			reportSteps(tr, "dhcp Open Firmware")
		}
		expect("a kernel that is fetched again and again",
			"its last 2 boots ended the same way: it has fetched the kernel, and nothing came after that")
		reportSteps(tr, "script pxelinux", "kernel fetched by the loader", "handover")
		expect("after the handover", "")
		tr.Called("n01", time.Now())
		reportSteps(tr, "dhcp Open Firmware", "script pxelinux", "kernel fetched by the loader")
		expect("when it has run in between", "")
	})
}

func TestANodeThatDiedAfterTheHandoverIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := []*cluster.Node{node("n01", "10.0.0.1")}
		tr := discardingTracker()
		tr.ping = func([]netip.Addr) ([]netip.Addr, error) { return nil, nil }
		reportSteps(tr, "script", "handover")
		for range 100 {
			time.Sleep(time.Second)
			if batch, _ := tr.quiet(nodes, 0); len(batch) > 0 {
				testkit.Must(t, tr.probe(batch))
			}
		}
		if s := tr.State("n01"); s.Stage != Silent || s.Booting || s.Running {
			t.Errorf("stage %s, boots: %v, runs: %v", s.Stage, s.Booting, s.Running)
		}
		tr.Called("n01", time.Now())
		if s := tr.State("n01"); s.Stage != boot.StageRunning || !s.Running {
			t.Errorf("when it calls: stage %s", s.Stage)
		}
	})
}

func TestTheLastRefusalIsKept(t *testing.T) {
	tr := discardingTracker()
	for range 3 {
		tr.Refused("n01", boot.Refusal{Text: strings.Repeat("x", 2*maxRefusal)})
	}
	got := tr.State("n01").Refusal
	if len(got.Text) != maxRefusal || got.Count != 3 || got.Last.IsZero() {
		t.Errorf("%d bytes, %d times, last %v", len(got.Text), got.Count, got.Last)
	}
	tr.Refused("n01", boot.Refusal{Text: "another", Expected: true})
	if got := tr.State("n01"); got.Refusal.Text != "another" || got.Refusal.Count != 1 || got.Stage != Off {
		t.Errorf("%+v", got)
	}
}
