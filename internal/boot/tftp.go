package boot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"

	"dim/internal/caller"
)

// Loaded is a file for a loader, with its size.
type Loaded struct {
	io.ReaderAt
	io.Closer
	size int64
}

// Size returns the file's length.
func (l *Loaded) Size() int64 { return l.size }

// OpenTFTP opens what a client asks for by TFTP: a loader, or for firmware that loads a kernel by itself a pxelinux
// configuration, the kernel and the initramfs. The error is fs.ErrPermission for one who is no node of this server's, and fs.ErrNotExist for
// any name that is not meant.
func (b *Boot) OpenTFTP(ctx context.Context, client netip.AddrPort, name string) (*Loaded, error) {
	who, _ := caller.Resolve(b.Cluster(), caller.Peer{Remote: client})
	p, err := b.nodeOf(who)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, fs.ErrPermission)
	}
	// Firmware writes the name in its own ways: with a slash in front, with backslashes, with the option's end mark behind.
	name = strings.TrimSuffix(name, "\xff")
	name = strings.TrimLeft(strings.ReplaceAll(name, `\`, "/"), "/")
	switch dir, rest, _ := strings.Cut(name, "/"); {
	case dir == "pxelinux.cfg":
		text, err := b.pxelinuxConfig(ctx, p)
		if err != nil {
			return nil, err
		}
		return &Loaded{strings.NewReader(text), io.NopCloser(nil), int64(len(text))}, nil
	case dir == "boot":
		kind, digest, _ := strings.Cut(rest, "/")
		a, err := b.asset(ctx, p, kind, digest)
		if err != nil {
			return nil, err
		}
		f, err := a.Open()
		if err != nil {
			return nil, err
		}
		return &Loaded{f, f, a.Size}, nil
	}
	f, fi, err := b.openLoader(name)
	if err != nil {
		return nil, err
	}
	b.reached(p, StageLoader, name+" by TFTP")
	return &Loaded{f, f, fi.Size()}, nil
}

// asset returns the node's kernel or initramfs ("kernel", "initramfs"), provided that it has that digest, and notes that the
// node fetches it.
func (b *Boot) asset(ctx context.Context, p place, kind, digest string) (Asset, error) {
	stage, ok := map[string]Stage{"kernel": StageKernel, "initramfs": StageInitramfs}[kind]
	if !ok {
		return Asset{}, fmt.Errorf("open boot/%s: %w", kind, fs.ErrNotExist)
	}
	kernel, initramfs, err := b.Assets.Assets(ctx, p.node)
	if err != nil {
		return Asset{}, err
	}
	a := kernel
	if stage == StageInitramfs {
		a = initramfs
	}
	if a.Digest.String() != digest {
		return Asset{}, fmt.Errorf("%s boots another %s now: %w", p.node.Name, kind, fs.ErrNotExist)
	}
	b.reached(p, stage, "fetched by the loader")
	return a, nil
}
