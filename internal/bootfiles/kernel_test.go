package bootfiles

import (
	"debug/pe"
	"encoding/binary"
	"testing"

	"dim/internal/initramfs"
	"dim/internal/testkit"
)

func TestTheKernelInAUnifiedImageIsServedByItself(t *testing.T) {
	s := newSite(t)
	const kernel = "the kernel alone"
	size := binary.Size(pe.FileHeader{}) + binary.Size(pe.SectionHeader32{})
	head := make([]byte, 68, 68+size)
	copy(head, "MZ")
	head[0x3c] = 64
	copy(head[64:], "PE\x00\x00")
	head = testkit.Value(binary.Append(head, binary.LittleEndian, pe.FileHeader{
		Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1,
	}))(t)
	head = testkit.Value(binary.Append(head, binary.LittleEndian, pe.SectionHeader32{
		Name: [8]uint8{'.', 'l', 'i', 'n', 'u', 'x'}, VirtualSize: uint32(len(kernel)),
		SizeOfRawData: uint32(len(kernel)), PointerToRawData: uint32(cap(head)),
	}))(t)
	v := s.capture(map[string]string{
		"boot/efi/EFI/Linux/debian-" + release + ".efi": string(head) + kernel + "and an initrd",
		"lib/modules/" + release + "/modules.dep":       "",
		"lib/modules/" + release + "/modules.builtin":   "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\n",
	})
	for range 2 { // it is built, and then kept
		p, err := s.builder().payload(t.Context(), v, compute())
		testkit.Must(t, err)
		if got := content(t, p.Kernel); string(got) != kernel {
			t.Errorf("the kernel is %q, want %q", got, kernel)
		}
	}
	for _, part := range []initramfs.Part{
		{Offset: -1, Size: 5}, {Offset: 1, Size: 1 << 40}, {Offset: 1 << 62, Size: 1 << 62},
	} {
		r := initramfs.Result{KernelPart: part}
		r.Kernel.Path = "boot/efi/EFI/Linux/debian-" + release + ".efi"
		if _, err := s.builder().partDigest(v, &r); err == nil {
			t.Errorf("%+v is a part of the file", part)
		}
	}
}
