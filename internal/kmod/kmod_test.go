package kmod

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() Tables {
	return Tables{
		Dep: "kernel/fs/nfs/nfsv3.ko: kernel/fs/nfs/nfs.ko kernel/net/sunrpc/sunrpc.ko\n" +
			"kernel/fs/nfs/nfs.ko.xz: kernel/net/sunrpc/sunrpc.ko\n" +
			"kernel/net/sunrpc/sunrpc.ko:\n" +
			"kernel/drivers/net/ethernet/r8169.ko.zst: kernel/drivers/net/mdio.ko\n" +
			"kernel/drivers/net/mdio.ko:\n" +
			"kernel/drivers/net/phy/realtek.ko:\n" +
			"kernel/drivers/net/virtio-net.ko:\n" +
			"not a line of modules.dep\n",
		Alias: "alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\n" +
			"alias virtio:d00000001v* virtio_net\n" +
			"alias nfs4-dummy[0-9] nfs\n" +
			"alias usb:v* missing\n",
		Softdep: "softdep r8169 pre: realtek unknown\n",
		Builtin: "kernel/net/packet/af_packet.ko\n",
		Conf: "# a comment\noptions r8169 a=1 \\\n b=2\nblacklist virtio-net\n" +
			"install nouveau /bin/false\nalias eth0 r8169\n",
	}
}

func TestLoadOrder(t *testing.T) {
	ix := Parse(sample())
	for _, c := range []struct {
		name string
		want []string
	}{
		{"nfsv3", []string{"sunrpc", "nfs", "nfsv3"}},
		{"r8169", []string{"realtek", "mdio", "r8169"}},
		{"virtio-net", []string{"virtio_net"}},
		{"af_packet", nil},
		{"no-such", nil},
	} {
		if d := cmp.Diff(c.want, ix.LoadOrder(c.name)); d != "" {
			t.Errorf("LoadOrder(%q) (-want +got):\n%s", c.name, d)
		}
	}
}

func TestCyclesOfSoftDependenciesEnd(t *testing.T) {
	ix := Parse(Tables{Dep: "a.ko: b.ko\nb.ko: a.ko\n", Softdep: "softdep a pre: b post: a\nsoftdep b pre: a\n"})
	if d := cmp.Diff([]string{"b", "a"}, ix.LoadOrder("a")); d != "" {
		t.Error(d)
	}
}

func TestLookupFindsByNameAndByHardware(t *testing.T) {
	ix := Parse(sample())
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"pci:v000010ECd00008168sv00001043sd000085AAbc02sc00i00", []string{"r8169"}},
		{"pci:v000010ECd00008169sv00001043sd000085AAbc02sc00i00", nil},
		{"virtio:d00000001v00001AF4", nil}, // blacklisted
		{"virtio-net", []string{"virtio_net"}},
		{"nfs4-dummy7", []string{"nfs"}},
		{"eth0", []string{"r8169"}},
		{"usb:v1", nil}, // no such module
	} {
		if d := cmp.Diff(c.want, ix.Lookup(c.in)); d != "" {
			t.Errorf("Lookup(%q) (-want +got):\n%s", c.in, d)
		}
	}
	if d := cmp.Diff([]string{"a=1", "b=2"}, ix.Options("r8169")); d != "" {
		t.Error(d)
	}
}

func TestPrunedTablesGiveTheSameAnswers(t *testing.T) {
	ix := Parse(sample())
	keep := map[string]bool{"r8169": true, "mdio": true, "realtek": true, "virtio_net": true}
	small := Parse(ix.Prune(keep))
	if d := cmp.Diff(ix.LoadOrder("r8169"), small.LoadOrder("r8169")); d != "" {
		t.Error(d)
	}
	if got, _ := small.Path("r8169"); got != "kernel/drivers/net/ethernet/r8169.ko" {
		t.Errorf("path of a compressed module: %q, want no .zst", got)
	}
	if len(small.Names()) != len(keep) {
		t.Errorf("modules %v, want those of %v", small.Names(), keep)
	}
	if d := cmp.Diff(ix.Options("r8169"), small.Options("r8169")); d != "" {
		t.Error(d)
	}
	if got := small.Lookup("virtio:d00000001v1"); got != nil {
		t.Errorf("a blacklisted module is found by its hardware: %v", got)
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, text string
		want          bool
	}{
		{"a*c", "abbc", true}, {"a*c", "abbd", false}, {"*", "", true}, {"a?c", "a/c", true}, {"a*", "a/b", true},
		{"x[0-9a]y", "x5y", true}, {"x[!0-9]y", "x5y", false}, {"x[0-9", "x5", false}, {"", "", true}, {"", "a", false},
		{"*b*b", "abab", true}, {"a**", "a", true},
	} {
		if got := match(c.pattern, c.text); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	s := sample()
	f.Add(s.Dep, s.Alias, s.Softdep, s.Conf)
	f.Add("a:", "alias [ a", "softdep a post:", "options a \\")
	f.Fuzz(func(t *testing.T, dep, alias, soft, conf string) {
		ix := Parse(Tables{Dep: dep, Alias: alias, Softdep: soft, Conf: conf})
		keep := make(map[string]bool)
		for _, n := range ix.Names() {
			if o := ix.LoadOrder(n); !slices.Contains(o, n) {
				t.Errorf("LoadOrder(%q) = %q lacks the module itself", n, o)
			}
			keep[n] = true
		}
		once := ix.Prune(keep)
		if twice := Parse(once).Prune(keep); !strings.ContainsAny(dep+alias+soft+conf, "\\:[\r") && once != twice {
			t.Errorf("pruning again changes the tables:\n%s", cmp.Diff(once, twice))
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("pci:v*d[0-9]?", "pci:v1d2x")
	f.Fuzz(func(_ *testing.T, pattern, text string) {
		if len(pattern) < 50 && len(text) < 50 {
			match(pattern, text)
		}
	})
}
