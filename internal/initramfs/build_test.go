package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const mods = "usr/lib/modules/6.1.0-9-amd64/"

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text), Mode: 0o644} }
func link(to string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink | 0o777}
}

// distribution is a small image with a kernel, an older one and a debug kernel.
func distribution(t testing.TB) fstest.MapFS {
	return fstest.MapFS{
		"lib":                        link("/usr/lib"),
		"boot/vmlinuz-6.1.0-9-amd64": link("../usr/lib/modules/6.1.0-9-amd64/vmlinuz"),
		"boot/config-6.1.0-9-amd64":  file("# kernel\nCONFIG_RD_ZSTD=y\n"),
		mods + "vmlinuz":             file("kernel"),
		mods + "modules.dep": file("kernel/fs/nfs/nfs.ko.xz:\nkernel/fs/nfs/nfsv3.ko.zst: kernel/fs/nfs/nfs.ko.xz\n" +
			"kernel/drivers/net/ethernet/card.ko.gz: kernel/lib/crc8.ko\nkernel/lib/crc8.ko:\n" +
			"kernel/drivers/net/ethernet/slot_cs.ko: kernel/drivers/pcmcia/pcmcia.ko\n" +
			"kernel/drivers/pcmcia/pcmcia.ko:\n" +
			"kernel/drivers/net/ethernet/mellanox/mlxsw/mlxsw_core.ko:\nkernel/drivers/net/wireless/wifi.ko:\n" +
			"kernel/fs/ext4/ext4.ko:\n"),
		mods + "modules.alias":                             file("alias pci:v1d2* card\nalias pci:v3d4* wifi\n"),
		mods + "modules.softdep":                           file("softdep card pre: ext4\n"),
		mods + "modules.builtin":                           file("kernel/net/packet/af_packet.ko\n"),
		mods + "kernel/fs/nfs/nfs.ko.xz":                   {Data: packXZ(t, "nfs")},
		mods + "kernel/fs/nfs/nfsv3.ko.zst":                {Data: packZstd(t, "nfsv3")},
		mods + "kernel/drivers/net/ethernet/card.ko.gz":    {Data: packGzip(t, "card")},
		mods + "kernel/lib/crc8.ko":                        file("crc8"),
		mods + "kernel/fs/ext4/ext4.ko":                    file("ext4"),
		"etc/modprobe.d/card.conf":                         file("options card speed=9\n"),
		"usr/lib/modprobe.d/card.conf":                     file("options card speed=1\n"),
		"boot/vmlinuz-6.1.0-8-amd64":                       file("old"),
		"usr/lib/modules/6.1.0-8-amd64/modules.dep":        file(""),
		"boot/vmlinuz-6.1.0-9-amd64+debug":                 file("debug"),
		"usr/lib/modules/6.1.0-9-amd64+debug/modules.dep":  file(""),
		"usr/lib/modules/6.1.0-10-amd64/kernel/left-over":  file("no kernel here"),
		"usr/lib/modules/6.1.0-11-amd64/modules.dep":       file("modules without their kernel"),
		"boot/vmlinuz-0-rescue-0123":                       file("rescue"),
		"usr/lib/modules/0-rescue-0123/modules.dep":        file(""),
		"usr/lib/modules/6.1.0-8-amd64/modules.dep.backup": file(""),
	}
}

func packXZ(t testing.TB, s string) []byte {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	return pack(t, &b, w, err, s)
}

func packZstd(t testing.TB, s string) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	return pack(t, &b, w, err, s)
}

func packGzip(t testing.TB, s string) []byte {
	var b bytes.Buffer
	return pack(t, &b, gzip.NewWriter(&b), nil, s)
}

func pack(t testing.TB, b *bytes.Buffer, w io.WriteCloser, err error, s string) []byte {
	t.Helper()
	if err == nil {
		_, err = io.WriteString(w, s)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// contents reads an archive as the kernel does.
func contents(t testing.TB, res *Result) map[string]string {
	t.Helper()
	var r io.Reader
	var err error
	if res.Compression == "zstd" {
		r, err = zstd.NewReader(bytes.NewReader(res.Initramfs))
	} else {
		r, err = gzip.NewReader(bytes.NewReader(res.Initramfs))
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readArchive(plain)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

var errArchive = errors.New("not a newc archive")

// readArchive returns the content of each name; of directories and devices their type.
func readArchive(b []byte) (map[string]string, error) {
	out := make(map[string]string)
	for {
		if len(b) < 110 || string(b[:6]) != "070701" {
			return nil, errArchive
		}
		var f [13]int
		for i := range f {
			n, err := strconv.ParseUint(string(b[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				return nil, err
			}
			f[i] = int(n)
		}
		mode, size, nameSize := f[1], f[6], f[11]
		body := (110 + nameSize + 3) &^ 3
		end := body + (size+3)&^3
		if nameSize < 1 || end > len(b) {
			return nil, errArchive
		}
		name := strings.TrimSuffix(string(b[110:110+nameSize]), "\x00")
		if name == "TRAILER!!!" {
			return out, nil
		}
		switch mode & 0o170000 {
		case typeFile:
			out[name] = string(b[body : body+size])
		case typeLink:
			out[name] = "-> " + string(b[body:body+size])
		case typeChar:
			out[name] = "char " + strconv.Itoa(f[9]) + ":" + strconv.Itoa(f[10])
		default:
			out[name] = "dir"
		}
		b = b[end:]
	}
}

func TestAnImagesKernelAndDriversBecomeAnInitramfs(t *testing.T) {
	res, err := Build(t.Context(), Spec{Image: distribution(t), Init: []byte("the init")})
	if err != nil {
		t.Fatal(err)
	}
	wantKernel := Kernel{Release: "6.1.0-9-amd64", Path: mods + "vmlinuz", Modules: strings.TrimSuffix(mods, "/")}
	if d := cmp.Diff(wantKernel, res.Kernel); d != "" {
		t.Errorf("kernel (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"card", "crc8", "ext4", "nfs", "nfsv3"}, res.Modules); d != "" {
		t.Errorf("modules (-want +got):\n%s", d)
	}
	if res.Compression != "zstd" {
		t.Errorf("compression %s, want zstd", res.Compression)
	}
	got := contents(t, res)
	in := "lib/modules/6.1.0-9-amd64/"
	for name, want := range map[string]string{
		"init": "the init", "dev/console": "char 5:1", "dev": "dir", "root": "dir", "sbin/modprobe": "-> ../init",
		in + "kernel/fs/nfs/nfs.ko": "nfs", in + "kernel/fs/nfs/nfsv3.ko": "nfsv3",
		in + "kernel/drivers/net/ethernet/card.ko": "card",
		in + "modules.alias":                       "alias pci:v1d2* card\n",
		"etc/modprobe.d/image.conf":                "options card speed=9\n",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
	for name := range got {
		if strings.Contains(name, "wifi") || strings.Contains(name, "_cs") || strings.Contains(name, "mlxsw") {
			t.Errorf("%s is in the archive", name)
		}
	}
}

func TestTheSameInputsGiveTheSameBytesAndKey(t *testing.T) {
	build := func(change func(fstest.MapFS, *Spec)) (string, string) {
		image := distribution(t)
		spec := Spec{Image: image, Init: []byte("the init")}
		change(image, &spec)
		key, err := Key(spec)
		if err != nil {
			t.Fatal(err)
		}
		res, err := Build(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return key, string(res.Initramfs)
	}
	key, initramfs := build(func(fstest.MapFS, *Spec) {})
	for what, change := range map[string]func(fstest.MapFS, *Spec){
		"":        func(fstest.MapFS, *Spec) {},
		"init":    func(_ fstest.MapFS, s *Spec) { s.Init = []byte("another init") },
		"modules": func(_ fstest.MapFS, s *Spec) { s.Modules = []string{"pcmcia"} },
		"options": func(m fstest.MapFS, _ *Spec) { m["etc/modprobe.d/card.conf"] = file("options card speed=90\n") },
		"module":  func(m fstest.MapFS, _ *Spec) { m[mods+"kernel/lib/crc8.ko"] = file("crc8 changed") },
		"config":  func(m fstest.MapFS, _ *Spec) { m["boot/config-6.1.0-9-amd64"] = file("CONFIG_OLD=y\n") },
	} {
		addModule := func(m fstest.MapFS) { m[mods+"kernel/drivers/pcmcia/pcmcia.ko"] = file("pcmcia") }
		k, i := build(func(m fstest.MapFS, s *Spec) {
			addModule(m)
			change(m, s)
		})
		base, _ := build(func(m fstest.MapFS, _ *Spec) { addModule(m) })
		if (k == base) != (what == "") || (i == initramfs) != (what == "") {
			t.Errorf("after a change of %q: key changed %v, bytes changed %v", what, k != base, i != initramfs)
		}
	}
	if key == "" {
		t.Error("no key")
	}
}

func TestTheKernelIsTheNewestUnlessNamed(t *testing.T) {
	all, err := Kernels(distribution(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, k := range all {
		names = append(names, k.Release)
	}
	want := []string{"6.1.0-9-amd64", "6.1.0-8-amd64", "6.1.0-9-amd64+debug", "0-rescue-0123"}
	if d := cmp.Diff(want, names); d != "" {
		t.Errorf("kernels (-want +got):\n%s", d)
	}
	k, err := chooseKernel(distribution(t), "6.1.0-8-amd64")
	if err != nil || k.Path != "boot/vmlinuz-6.1.0-8-amd64" {
		t.Errorf("the named kernel = %+v, %v", k, err)
	}
	_, err = chooseKernel(distribution(t), "5.0")
	if !errors.Is(err, ErrNoKernel) || !strings.Contains(err.Error(), "6.1.0-9-amd64") {
		t.Errorf("a kernel that is not there: %v", err)
	}
	if _, err = chooseKernel(fstest.MapFS{}, ""); !errors.Is(err, ErrNoKernel) {
		t.Errorf("an image without kernels: %v", err)
	}
}

func TestBuildRefusesWhatCannotBoot(t *testing.T) {
	image := distribution(t)
	if _, err := Build(t.Context(), Spec{Image: image, Modules: []string{"nonesuch"}}); err == nil ||
		!strings.Contains(err.Error(), "nonesuch") {
		t.Errorf("an unknown module: %v", err)
	}
	if _, err := Build(t.Context(), Spec{Image: image, Release: "6.1.0-8-amd64"}); err == nil ||
		!strings.Contains(err.Error(), "NFS root") {
		t.Errorf("a kernel without NFS: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, Spec{Image: image}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled build: %v", err)
	}
}

func TestKernelsWithoutZstdGetGzip(t *testing.T) {
	image := distribution(t)
	delete(image, "boot/config-6.1.0-9-amd64")
	res, err := Build(t.Context(), Spec{Image: image, Init: []byte("x")})
	if err != nil || res.Compression != "gzip" {
		t.Fatalf("compression %v, %v", res, err)
	}
	if got := contents(t, res); got["init"] != "x" {
		t.Errorf("init: %q", got["init"])
	}
}

func TestLinksStayInsideTheImage(t *testing.T) {
	tr := tree{fstest.MapFS{
		"etc/up":     link("../../../../etc/passwd"),
		"etc/passwd": file("the image's"),
		"abs":        link("/etc/up"),
		"loop":       link("loop"),
	}}
	for _, name := range []string{"etc/up", "abs"} {
		if b, err := tr.read(name); string(b) != "the image's" {
			t.Errorf("%s = %q, %v", name, b, err)
		}
	}
	if _, err := tr.read("loop"); err == nil {
		t.Error("a link to itself can be read")
	}
}

// elfWithFirmware returns a minimal ELF file with a .modinfo section.
func elfWithFirmware(names ...string) string {
	info := "license=GPL\x00"
	for _, n := range names {
		info += "firmware=" + n + "\x00"
	}
	strs := "\x00.modinfo\x00.shstrtab\x00"
	h := make([]byte, 64, 512)
	copy(h, "\x7fELF\x02\x01\x01")
	put := binary.LittleEndian
	put.PutUint16(h[16:], 1)
	put.PutUint16(h[18:], 62)
	put.PutUint32(h[20:], 1)
	put.PutUint64(h[40:], uint64(64+len(info)+len(strs)))
	put.PutUint16(h[52:], 64)
	put.PutUint16(h[58:], 64)
	put.PutUint16(h[60:], 3)
	put.PutUint16(h[62:], 2)
	h = append(append(h, info...), strs...)
	section := func(name, kind uint32, offset, size int) {
		s := make([]byte, 64)
		put.PutUint32(s, name)
		put.PutUint32(s[4:], kind)
		put.PutUint64(s[24:], uint64(offset))
		put.PutUint64(s[32:], uint64(size))
		put.PutUint64(s[48:], 1)
		h = append(h, s...)
	}
	section(0, 0, 0, 0)
	section(1, 1, 64, len(info))
	section(10, 3, 64+len(info), len(strs))
	return string(h)
}

func TestFirmwareIsIncludedUpToTheLimit(t *testing.T) {
	image := distribution(t)
	image[mods+"kernel/lib/crc8.ko"] = file(
		elfWithFirmware("a/small.bin", "big.bin", "missing.bin", "../../etc/shadow"))
	image["usr/lib/firmware/a/small.bin.xz"] = file("small")
	image["usr/lib/firmware/big.bin"] = file(strings.Repeat("b", 100))
	res, err := Build(t.Context(), Spec{Image: image, MaxFirmware: 50})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a/small.bin.xz"}, res.Firmware); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"big.bin"}, res.LeftOut); d != "" {
		t.Error(d)
	}
	if got := contents(t, res); got["lib/firmware/a/small.bin.xz"] != "small" {
		t.Error("the firmware is not in the archive")
	}
	none, err := Build(t.Context(), Spec{Image: image, MaxFirmware: -1})
	if err != nil || none.Firmware != nil {
		t.Errorf("without firmware: %v, %v", none.Firmware, err)
	}
}

func FuzzArchiveCanBeReadBack(f *testing.F) {
	f.Add("a/b/c", "content", uint32(5))
	f.Fuzz(func(t *testing.T, name, content string, minor uint32) {
		if !fs.ValidPath(name) || name == "." || strings.ContainsRune(name, 0) || name == "TRAILER!!!" {
			return
		}
		a := newArchive()
		a.file(name, 0o644, []byte(content))
		a.char("dev-null", 1, minor)
		var b bytes.Buffer
		if err := a.write(&b); err != nil {
			t.Fatal(err)
		}
		got, err := readArchive(b.Bytes())
		if err != nil || name != "dev-null" && got[name] != content {
			t.Errorf("read %q = %q, %v", name, got[name], err)
		}
	})
}

func FuzzUnpackAndFirmware(f *testing.F) {
	f.Add([]byte(elfWithFirmware("x")), uint8(0))
	f.Add(packXZ(f, "x"), uint8(1))
	f.Add(packZstd(f, "x"), uint8(2))
	f.Fuzz(func(_ *testing.T, b []byte, kind uint8) {
		if out, err := unpack("m.ko"+[]string{"", ".xz", ".zst", ".gz"}[kind%4], b); err == nil {
			firmwareOf(out)
		}
	})
}
