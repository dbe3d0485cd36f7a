// Package oci reads container images, from an OCI layout directory or from a registry, as root file systems.
//
// # How
//
// go-containerregistry talks to registries and parses manifests, which are JSON. Package unpack
// applies the layers, in another process. It keeps hard links between layers, which mutate.Extract of the library
// breaks, and it obeys whiteouts.
//
// # Invariants
//
// Every byte is verified: manifests and the configuration against the digests that name them, each layer against the
// manifest. Whoever decompresses a layer verifies its content against Layer.DiffID, which the configuration has.
// Registries are used with TLS only, unless they are on this machine or the caller declares one as plain.
//
// The settings for a container (command, environment, ports) have no meaning for a machine and are not read.
package oci

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Image is one image for one architecture.
type Image struct {
	Digest string // of the manifest; it identifies all content

	layers  []v1.Layer
	descs   []v1.Descriptor
	diffIDs []v1.Hash
}

// newImage checks an image's manifest and configuration.
func newImage(from source, img v1.Image, want v1.Hash, arch string) (*Image, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	if digest != want {
		return nil, fmt.Errorf("the manifest's digest is %s, not %s", digest, want)
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if err := from.check("a configuration", &m.Config); err != nil {
		return nil, err
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return nil, err
	}
	if sum, _, err := v1.SHA256(bytes.NewReader(raw)); err != nil || sum != m.Config.Digest {
		return nil, fmt.Errorf("the configuration's digest is %s, not %s", sum, m.Config.Digest)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if architecture(config.Architecture) != arch || config.OS != "linux" {
		return nil, fmt.Errorf("it is for %s/%s, not for linux/%s as the description says",
			config.OS, config.Architecture, arch)
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	if len(layers) == 0 || len(layers) != len(m.Layers) || len(layers) != len(config.RootFS.DiffIDs) {
		return nil, fmt.Errorf("it has %d layers and names %d", len(m.Layers), len(config.RootFS.DiffIDs))
	}
	for i := range m.Layers {
		if !m.Layers[i].MediaType.IsLayer() {
			return nil, fmt.Errorf("layer %d is of the kind %q: it is not an image of a file system",
				i+1, m.Layers[i].MediaType)
		}
		if m.Layers[i].Size < 0 {
			return nil, fmt.Errorf("layer %d has the size %d", i+1, m.Layers[i].Size)
		}
		if sum := config.RootFS.DiffIDs[i]; sum.Algorithm != "sha256" {
			return nil, fmt.Errorf("layer %d has a digest of the kind %q", i+1, sum.Algorithm)
		}
	}
	return &Image{Digest: digest.String(), layers: layers, descs: m.Layers, diffIDs: config.RootFS.DiffIDs}, nil
}

// Layer is one layer.
type Layer struct {
	DiffID string // the digest of its decompressed archive, in hexadecimal
	// Open returns its archive. Reading to the end returns an error if the digest is not the one in the manifest.
	Open func() (io.ReadCloser, error)
}

// Layers returns the layers, from the lowest to the highest.
func (i *Image) Layers() []Layer {
	list := make([]Layer, len(i.layers))
	for n, l := range i.layers {
		list[n] = Layer{DiffID: i.diffIDs[n].Hex, Open: func() (io.ReadCloser, error) {
			blob, err := l.Compressed()
			if err != nil {
				return nil, err
			}
			return &verified{blob, sha256.New(), i.descs[n].Digest, i.descs[n].Size}, nil
		}}
	}
	return list
}

// verified is a blob that is verified while it is read.
type verified struct {
	io.ReadCloser
	hash hash.Hash
	want v1.Hash
	left int64 // bytes that may come
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	if v.left -= int64(n); v.left < 0 {
		return 0, fmt.Errorf("%s is larger than its manifest states", v.want)
	}
	v.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := hex.EncodeToString(v.hash.Sum(nil)); v.want.Algorithm != "sha256" || got != v.want.Hex {
			return n, fmt.Errorf("it has the digest sha256:%s, not %s", got, v.want)
		}
	}
	return n, err
}

// maxDepth is the largest depth of indexes in indexes.
const maxDepth = 4

// search finds the images for an architecture in an index.
type search struct {
	from  source
	arch  string
	ref   string // the name of the image in the index of a layout; "": any
	found []found

	others []found // images without a platform in the index that are for another one
}

type found struct {
	img  v1.Image
	desc v1.Descriptor
	ref  string
}

// The annotations with the name of an image in the index of a layout (OCI image-spec, annotations.md), and with its
// whole name, as containerd and docker write it.
const (
	refName  = "org.opencontainers.image.ref.name"
	fullName = "io.containerd.image.name"
)

// choose returns the one image in the index that is for the architecture.
func choose(from source, index v1.ImageIndex, arch, ref string) (*Image, error) {
	c := &search{from: from, arch: arch, ref: ref}
	if err := c.index(index, 0, ref == ""); err != nil {
		return nil, err
	}
	switch len(c.found) {
	case 0:
		if len(c.others) == 1 {
			return newImage(from, c.others[0].img, c.others[0].desc.Digest, arch) // says for what it is
		}
		if ref != "" {
			return nil, fmt.Errorf("there is no image %q for linux/%s", ref, arch)
		}
		return nil, fmt.Errorf("there is no image for linux/%s", arch)
	case 1:
		return newImage(from, c.found[0].img, c.found[0].desc.Digest, arch)
	}
	names := ""
	for _, f := range c.found {
		if ref != "" {
			names += " " + f.desc.Digest.String()
			continue
		}
		names += fmt.Sprintf(" %q", f.ref)
	}
	if ref != "" {
		return nil, fmt.Errorf("there are %d different images %q for linux/%s: remove all but one of%s",
			len(c.found), ref, arch, names)
	}
	return nil, fmt.Errorf("there are %d images for linux/%s: name one of%s", len(c.found), arch, names)
}

// index adds the images in an index. Named says that it has the name that is searched for, and so has all that is in
// it.
func (c *search) index(index v1.ImageIndex, depth int, named bool) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d indexes in each other", maxDepth)
	}
	m, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for i := range m.Manifests {
		if err := c.manifest(index, &m.Manifests[i], depth, named); err != nil {
			return err
		}
	}
	return nil
}

// manifest adds what an entry of an index leads to.
func (c *search) manifest(index v1.ImageIndex, desc *v1.Descriptor, depth int, named bool) error {
	ref, full := desc.Annotations[refName], desc.Annotations[fullName]
	named = named || ref == c.ref || full == c.ref
	if p := desc.Platform; p != nil && (architecture(p.Architecture) != c.arch || p.OS != "linux" && p.OS != "") {
		return nil
	}
	switch {
	case desc.MediaType.IsIndex():
		if err := c.from.check("an index", desc); err != nil {
			return err
		}
		below, err := index.ImageIndex(desc.Digest)
		if err != nil {
			return err
		}
		if got, err := below.Digest(); err != nil || got != desc.Digest {
			return fmt.Errorf("an index has the digest %s, not %s", got, desc.Digest)
		}
		return c.index(below, depth+1, named)
	case desc.MediaType.IsImage() && named:
		same := func(f found) bool { return f.desc.Digest == desc.Digest }
		if slices.ContainsFunc(c.found, same) {
			return nil
		}
		if err := c.from.check("a manifest", desc); err != nil {
			return err
		}
		img, err := index.Image(desc.Digest)
		if err != nil {
			return err
		}
		f := found{img, *desc, cmp.Or(ref, full)}
		if other, err := c.otherPlatform(f); other || err != nil {
			return err
		}
		c.found = append(c.found, f)
	}
	return nil
}

// otherPlatform reports whether the configuration of an image without a platform in the index says that it is for
// another one.
func (c *search) otherPlatform(f found) (bool, error) {
	if f.desc.Platform != nil {
		return false, nil
	}
	m, err := f.img.Manifest()
	if err == nil {
		err = c.from.check("a configuration", &m.Config)
	}
	if err != nil {
		return false, err
	}
	config, err := f.img.ConfigFile()
	if err != nil {
		return false, err
	}
	if architecture(config.Architecture) == c.arch && config.OS == "linux" {
		return false, nil
	}
	c.others = append(c.others, f)
	return true, nil
}

// architecture returns the name that OCI has for an architecture. Some tools write that of uname.
func architecture(name string) string {
	switch name {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return name
}
