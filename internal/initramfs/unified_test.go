package initramfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// unifiedImage returns a unified kernel image with a kernel in it.
func unifiedImage(kernel string) []byte {
	le := binary.LittleEndian
	file := make([]byte, 512)
	copy(file, "MZ")
	le.PutUint32(file[0x3c:], 64)
	copy(file[64:], "PE\x00\x00")
	coff := file[68:]
	le.PutUint16(coff, 0x8664)
	le.PutUint16(coff[2:], 2) // sections
	for i, s := range []struct{ name, data string }{{".osrel", "ID=test\n"}, {".linux", kernel}} {
		h := coff[20+40*i:]
		copy(h, s.name)
		le.PutUint32(h[8:], uint32(len(s.data)))
		le.PutUint32(h[16:], uint32(len(s.data)+100)) // padded
		le.PutUint32(h[20:], uint32(len(file)))
		file = append(file, s.data...)
		file = append(file, make([]byte, 100)...)
		coff = file[68:]
	}
	return file
}

func TestKernelsAreFoundWhereBootLoadersReadThem(t *testing.T) {
	const rel, dep = "6.12.0-3.fc41.x86_64", "usr/lib/modules/6.12.0-3.fc41.x86_64/modules.dep"
	uki := string(unifiedImage("the kernel"))
	for _, c := range []struct{ path, text, kernel string }{
		{"boot/0123abcd/" + rel + "/linux", "plain", "plain"},
		{"efi/fedora/" + rel + "/linux", "plain", "plain"},
		{"boot/efi/0123abcd/" + rel + "/linux", "plain", "plain"},
		{"usr/lib/modules/" + rel + "/vmlinuz-virt.efi", uki, "the kernel"},
		{"boot/efi/EFI/Linux/0123abcd-" + rel + ".efi", uki, "the kernel"},
		{"efi/EFI/Linux/fedora-" + rel + "+3-0.efi", uki, "the kernel"},
		{"boot/EFI/Linux/" + rel + "+2.efi", uki, "the kernel"},
		{"boot/EFI/Linux/0123abcd-6.12.0-2.fc41.x86_64.efi", uki, ""},
		{"boot/0123abcd/6.12.0-2.fc41.x86_64/linux", "plain", ""},
	} {
		builtin := "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\n"
		image := fstest.MapFS{
			dep: file(""), strings.Replace(dep, "dep", "builtin", 1): file(builtin), c.path: file(c.text),
		}
		r, err := Build(t.Context(), Spec{Image: image, Init: []byte("init")})
		if err != nil {
			if c.kernel != "" || !errors.Is(err, ErrNoKernel) {
				t.Errorf("%s: %v", c.path, err)
			}
			continue
		}
		got := image[r.Kernel.Path].Data
		if p := r.KernelPart; p.Size > 0 {
			got = got[p.Offset : p.Offset+p.Size]
		}
		if string(got) != c.kernel || r.Kernel.Release != rel {
			t.Errorf("%s: kernel %+v is %.20q, want %q", c.path, r.Kernel, got, c.kernel)
		}
	}
}

func TestAPlainKernelIsBetterThanAUnifiedImage(t *testing.T) {
	image := distribution(t)
	image["boot/efi/EFI/Linux/x-6.1.0-9-amd64.efi"] = file("x")
	k, err := chooseKernel(image, "")
	if err != nil || k.Unified || k.Path != "usr/lib/modules/6.1.0-9-amd64/vmlinuz" {
		t.Errorf("%+v, %v", k, err)
	}
}

func TestDamagedUnifiedImagesAreRefused(t *testing.T) {
	whole := unifiedImage("the kernel")
	long := bytes.Clone(whole)
	binary.LittleEndian.PutUint32(long[68+20+40+16:], 1<<20)
	binary.LittleEndian.PutUint32(long[68+20+40+8:], 1<<20)
	for name, b := range map[string][]byte{
		"no program":         []byte("no program"),
		"no kernel":          bytes.Replace(whole, []byte(".linux"), []byte(".other"), 1),
		"a kernel too long":  long,
		"an empty file":      {},
		"without its header": whole[:80],
	} {
		if p, err := linuxSection(bytes.NewReader(b), int64(len(b))); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzUnifiedImage(f *testing.F) {
	f.Add(unifiedImage("the kernel"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := linuxSection(bytes.NewReader(b), int64(len(b)))
		if err == nil && (p.Offset < 0 || p.Size <= 0 || p.Offset+p.Size > int64(len(b))) {
			t.Errorf("%+v of %d bytes", p, len(b))
		}
	})
}
