package oci

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// OpenLayout opens the image for arch in an OCI layout. Path is DIR or DIR:REF.
func OpenLayout(path, arch string) (*Image, error) {
	dir, ref := splitLayout(path)
	l, err := layout.FromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("no OCI layout: %w", err)
	}
	if err := source(dir).checkIndex(); err != nil {
		return nil, err
	}
	index, err := l.ImageIndex()
	if err != nil {
		return nil, err
	}
	return choose(source(dir), index, arch, ref)
}

// splitLayout splits DIR or DIR:REF. Both may have colons: DIR is the shortest part that is a layout.
func splitLayout(path string) (dir, ref string) {
	for i := range path {
		if path[i] == ':' && isLayout(path[:i]) {
			return path[:i], path[i+1:]
		}
	}
	if i := strings.LastIndexByte(path, ':'); i > 0 && !isLayout(path) {
		return path[:i], path[i+1:]
	}
	return path, ""
}

func isLayout(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "oci-layout"))
	return err == nil
}

// Plain tells which registries may be used without TLS.
type Plain uint8

// Loopback allows those on this machine. Declared allows the registry of the reference as well.
const (
	Loopback Plain = iota
	Declared
)

// OpenRegistry opens the image for arch at REGISTRY/NAME[:TAG|@DIGEST]. Credentials come from the configuration of
// docker or podman. Ctx must not end before the layers have been read.
func OpenRegistry(ctx context.Context, reference, arch string, plain Plain) (*Image, error) {
	var opts []name.Option
	if plain == Declared {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(reference, opts...)
	if err != nil {
		return nil, err
	}
	transport := &guard{next: remote.DefaultTransport}
	if plain == Declared {
		transport.declared = ref.Context().RegistryStr()
	}
	desc, err := remote.Get(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithTransport(transport), remote.WithUserAgent("dim"))
	if err != nil {
		return nil, err
	}
	if desc.MediaType.IsIndex() {
		index, err := desc.ImageIndex()
		if err != nil {
			return nil, err
		}
		return choose("", index, arch, "")
	}
	img, err := desc.Image()
	if err != nil {
		return nil, err
	}
	return newImage("", img, desc.Digest, arch)
}

func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && addr.IsLoopback()
}
