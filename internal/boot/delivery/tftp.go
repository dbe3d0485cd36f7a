package delivery

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"strings"

	"dim/internal/boot"
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
// configuration, the kernel and the initramfs. The error is fs.ErrPermission for a client that is no node of this
// server's, and fs.ErrNotExist for any name that is not served.
func (s *Server) OpenTFTP(ctx context.Context, client netip.AddrPort, name string) (*Loaded, error) {
	who, _ := caller.Resolve(s.Policy.Cluster(), caller.Peer{Remote: client})
	r, err := s.requester(who)
	if err != nil {
		s.noteRefusal(&r, "TFTP", err)
		return nil, fmt.Errorf("%w: %w", err, fs.ErrPermission)
	}
	s.findObserver(ctx, &r)
	f, err := s.open(ctx, &r, name)
	if err != nil {
		s.noteRefusal(&r, "TFTP", err)
	}
	return f, err
}

// open opens the file that a name of TFTP means.
func (s *Server) open(ctx context.Context, r *requester, name string) (*Loaded, error) {
	// Firmware writes the name in its own ways: with a slash in front, with backslashes, with the option's end mark
	// behind.
	name = strings.TrimSuffix(name, "\xff")
	name = strings.TrimLeft(strings.ReplaceAll(name, `\`, "/"), "/")
	switch dir, rest, _ := strings.Cut(name, "/"); {
	case dir == "pxelinux.cfg":
		line, p, err := s.begin(ctx, r, "pxelinux")
		if err != nil {
			return nil, err
		}
		text := r.PXELinuxConfig(line, p.Kernel.Digest, p.Initramfs.Digest)
		return &Loaded{strings.NewReader(text), io.NopCloser(nil), int64(len(text))}, nil
	case dir == "boot":
		kind, digest, _ := strings.Cut(rest, "/")
		a, err := s.asset(ctx, r, kind, digest)
		if err != nil {
			return nil, err
		}
		f, err := a.Open()
		if err != nil {
			return nil, err
		}
		return &Loaded{f, f, a.Size}, nil
	}
	f, err := s.OpenLoader(name)
	if err == nil {
		s.report(r, boot.Event{Stage: boot.StageLoader, Detail: name + " by TFTP"})
	}
	return f, err
}

// OpenLoader opens a loader, in nobody's name. The error may be fs.ErrNotExist.
func (s *Server) OpenLoader(name string) (*Loaded, error) {
	f, fi, err := s.Loaders.open(name)
	if err != nil {
		return nil, err
	}
	return &Loaded{f, f, fi.Size()}, nil
}

// asset returns the node's kernel or initramfs ("kernel", "initramfs"), provided that it has that digest, and reports
// that the node fetches it.
func (s *Server) asset(ctx context.Context, r *requester, kind, digest string) (Asset, error) {
	stage, ok := map[string]boot.Stage{"kernel": boot.StageKernel, "initramfs": boot.StageInitramfs}[kind]
	if !ok {
		return Asset{}, fmt.Errorf("open boot/%s: %w", kind, fs.ErrNotExist)
	}
	p, err := s.Payloads.Current(ctx, r.Node)
	if err != nil {
		return Asset{}, err
	}
	a := p.Kernel
	if stage == boot.StageInitramfs {
		a = p.Initramfs
	}
	if a.Digest.String() != digest {
		return Asset{}, fmt.Errorf("%s boots another %s now: %w", r.Node.Name, kind, fs.ErrNotExist)
	}
	s.report(r, boot.Event{Stage: stage, Detail: boot.DetailFetched})
	return a, nil
}
