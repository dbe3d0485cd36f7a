package initramfs

import (
	"debug/pe"
	"errors"
	"fmt"
	"io"
)

// MaxKernel is the size of the largest kernel in a unified kernel image, in bytes. Those of distributions have some
// 15 MB.
const MaxKernel = 256 << 20

// Part is a part of a file.
type Part struct {
	Offset int64 `json:"offset"` // in bytes
	Size   int64 `json:"size"`   // in bytes; 0: the part is the whole file
}

// kernelPart returns where in a file the kernel is. A unified kernel image is a PE program with the kernel in its
// section .linux (UAPI Group, Unified Kernel Image).
func (t tree) kernelPart(k Kernel) (p Part, err error) {
	if !k.Unified {
		return p, nil
	}
	f, err := t.Open(k.Path)
	if err != nil {
		return p, err
	}
	defer f.Close()
	at, ok := f.(io.ReaderAt)
	if !ok {
		return p, fmt.Errorf("read %s: it cannot be read in parts", k.Path)
	}
	info, err := f.Stat()
	if err != nil {
		return p, err
	}
	if p, err = linuxSection(at, info.Size()); err != nil {
		return p, fmt.Errorf("take %s apart: %w", k.Path, err)
	}
	return p, nil
}

// linuxSection returns where the section .linux is in a file of a given size.
func linuxSection(file io.ReaderAt, size int64) (p Part, err error) {
	program, err := pe.NewFile(file)
	if err != nil {
		return p, err
	}
	for _, s := range program.Sections {
		if s.Name != ".linux" {
			continue
		}
		p = Part{Offset: int64(s.Offset), Size: int64(min(s.Size, s.VirtualSize))}
		if p.Size == 0 || p.Size > MaxKernel || p.Offset+p.Size > size {
			return Part{}, fmt.Errorf("its section .linux has %d bytes from byte %d on, of %d", p.Size, p.Offset, size)
		}
		return p, nil
	}
	return p, errors.New("it has no section .linux")
}
