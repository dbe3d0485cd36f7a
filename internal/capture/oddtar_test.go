package capture

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dim/internal/testkit"
)

// refused captures a master, which must fail with an error that has all of want.
func refused(t *testing.T, what string, l *lab, want ...string) {
	t.Helper()
	_, err := Run(context.Background(), l.store, l.o)
	for _, text := range want {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", what, err, text)
		}
	}
}

func TestWhatIsNoTarIsNamed(t *testing.T) {
	at := func(offset int, text string) []byte {
		b := make([]byte, 80<<10)
		copy(b[offset:], text)
		return b
	}
	for what, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"an ISO":              {at(32769, "CD001"), "an ISO image"},
		"ext4":                {at(1080, "\x53\xef"), "an ext2, ext3 or ext4 file system"},
		"btrfs":               {at(65600, "_BHRfS_M"), "a btrfs file system"},
		"a disk":              {at(512, "EFI PART"), "the image of a partitioned disk"},
		"cpio":                {at(0, "070701"), "bsdtar"},
		"zip":                 {at(0, "PK\x03\x04"), "a zip archive"},
		"lz4":                 {at(0, "\x04\x22\x4d\x18"), "zstd"},
		"zeros":               {make([]byte, 1<<20), "nothing but zeros"},
		"zeros and then text": {at(40000, "text"), "begins with zeros"},
		"an empty archive":    {make([]byte, 10<<10), "nothing but zeros"},
		"nothing":             {nil, "it is empty"},
	} {
		path := filepath.Join(t.TempDir(), "master.tar")
		testkit.Must(t, os.WriteFile(path, tt.content, 0o600))
		refused(t, what, newLab(t).withMaster("tar:"+path), tt.want)
	}
	for what, tt := range map[string]struct {
		members []tar.Header
		want    string
	}{
		"docker save":    {[]tar.Header{file("manifest.json", "[]"), file("1/layer.tar", "")}, "docker-archive:"},
		"an OCI archive": {[]tar.Header{file("oci-layout", "{}"), file("index.json", "{}")}, "oci:DIR"},
		"a level deep":   {[]tar.Header{file("t/etc/passwd", ""), file("t/usr/bin/x", "")}, "tar -C t ."},
	} {
		refused(t, what, newLab(t).withMaster("tar:"+archiveOf(t, tt.members...)), tt.want)
	}
}

func TestARefusalNamesTheLastMember(t *testing.T) {
	path := archiveOf(t, file("good", "1"), file("bad", "2"))
	b := testkit.Value(os.ReadFile(path))(t)
	b[1024+150] = 'x' // in the sum of the header of "bad"
	testkit.Must(t, os.WriteFile(path, b, 0o600))
	refused(t, "a bad header", newLab(t).withMaster("tar:"+path), `member "good"`, "byte 1536", "invalid tar header")
}

func TestASecondArchiveInOneFileIsReported(t *testing.T) {
	path := archiveOf(t, file("a", "1"))
	b := append(testkit.Value(os.ReadFile(path))(t), testkit.Value(os.ReadFile(archiveOf(t, file("b", "2"))))(t)...)
	testkit.Must(t, os.WriteFile(path, b, 0o600))
	r := newLab(t).withMaster("tar:" + path).capture()
	if got := texts(r); len(got) != 1 || !strings.Contains(got[0], "a further archive begins at byte 2048") {
		t.Errorf("problems: %q", got)
	}
}

func TestXattrsOfBsdtarAreKept(t *testing.T) {
	both := file("f", "")
	both.PAXRecords = map[string]string{
		"LIBARCHIVE.xattr.security.capability": "AQAAAgAgAAAAAAAAAAAAAAAAAAA", // without the padding
		"LIBARCHIVE.xattr.user.a%20b":          "eA==",
		"STAR.xattr.user.x":                    "?",
	}
	l := newLab(t).withMaster("tar:" + archiveOf(t, both))
	r := l.capture()
	got := l.entries(r.Version)["f"].Xattrs
	if len(got) != 2 || len(got[0].Value) != 20 || got[1].Name != "user.a b" || string(got[1].Value) != "x" {
		t.Errorf("xattrs: %+v", got)
	}
	if got := texts(r); len(got) != 1 || !strings.Contains(got[0], "STAR.xattr.user.x") {
		t.Errorf("problems: %q", got)
	}
}

func TestTheGroupsBitsOfAModeAreTheMaskOfItsACL(t *testing.T) {
	text := file("text", "")
	text.PAXRecords = map[string]string{
		"SCHILY.acl.access": "user::rw-,user:1234:rw-,group::r--,mask::rw-,other::r--",
	}
	value := binary.LittleEndian.AppendUint32(nil, 2)
	const none = 1<<32 - 1
	for _, e := range [][3]uint32{{1, 6, none}, {2, 6, 1234}, {4, 4, none}, {16, 6, none}, {32, 4, none}} {
		value = binary.LittleEndian.AppendUint16(value, uint16(e[0]))
		value = binary.LittleEndian.AppendUint16(value, uint16(e[1]))
		value = binary.LittleEndian.AppendUint32(value, e[2])
	}
	xattr := file("xattr", "")
	xattr.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": string(value)}
	l := newLab(t).withMaster("tar:" + archiveOf(t, text, xattr))
	entries := l.entries(l.capture().Version)
	for _, name := range []string{"text", "xattr"} {
		if e := entries[name]; e.Mode != 0o664 || !bytes.Equal(e.Xattrs[0].Value, value) {
			t.Errorf("%s: mode %o, %x", name, e.Mode, e.Xattrs[0].Value)
		}
	}
}

// layoutOfLayers writes an OCI layout with an image "v1" of layers without compression.
func layoutOfLayers(t *testing.T, layers ...[]byte) string {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{Architecture: "amd64", OS: "linux"})
	testkit.Must(t, err)
	for _, b := range layers {
		img, err = mutate.AppendLayers(img, static.NewLayer(b, types.OCIUncompressedLayer))
		testkit.Must(t, err)
	}
	return layoutOf(t, map[string]v1.Image{"v1": img})
}

func TestLayersWithoutAnEndMarkAreWhole(t *testing.T) {
	whole := testkit.Value(os.ReadFile(archiveOf(t, file("a", "1"), file("b", "2"))))(t)
	cut := whole[:len(whole)-1024]
	l := newLab(t)
	other := l.image("oci:" + layoutOfLayers(t, cut, nil, cut[:1024]))
	if got := l.contents(other.capture().Version); len(got) != 3 || got["b"] != "2" {
		t.Errorf("got %v", got)
	}
	refused(t, "a layer that ends within a member", l.image("oci:"+layoutOfLayers(t, cut[:1536])), `member "b"`)
}

func TestADirectoryThatReplacesALinkIsReported(t *testing.T) {
	base := append(dirs("usr", "usr/lib", "usr/sbin"), file("usr/lib/ld.so", "ld"), symlink("lib", "usr/lib"),
		symlink("dangling", "nowhere"))
	over := append(dirs("lib", "lib/firmware", "dangling"), file("lib/firmware/f", "f"))
	l := newLab(t)
	image := l.image("oci:" + layoutOf(t, map[string]v1.Image{"v1": containerImage(t, "amd64", base, over)}))
	for what, r := range map[string]Result{
		"a layer":    image.capture(),
		"an archive": newLab(t).withMaster("tar:" + archiveOf(t, append(base, over...)...)).capture(),
	} {
		if got := texts(r); !slices.Equal(got, []string{"/lib: replaces a link: it was a link to usr/lib"}) {
			t.Errorf("%s: %q", what, got)
		}
	}
}

func TestAnOpaqueMarkLeadsThroughALink(t *testing.T) {
	base := append(dirs("usr", "usr/lib"), file("usr/lib/old", ""), symlink("lib", "usr/lib"))
	l := newLab(t)
	over := []tar.Header{file("lib/.wh..wh..opq", ""), file("lib/new", "")}
	other := l.image("oci:" + layoutOf(t, map[string]v1.Image{"v1": containerImage(t, "amd64", base, over)}))
	got := l.contents(other.capture().Version)
	if _, old := got["usr/lib/old"]; old || got["lib"] != "symlink" || len(got) != 5 {
		t.Errorf("got %v", got)
	}
}

func TestOddIndexesOfLayouts(t *testing.T) {
	amd := containerImage(t, "amd64", []tar.Header{file("arch", "amd64")})
	other := containerImage(t, "amd64", []tar.Header{file("arch", "other")})
	arm := containerImage(t, "arm64", []tar.Header{file("arch", "arm64")})
	named := func(name string) layout.Option {
		return layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})
	}
	l := newLab(t)
	write := func(add func(layout.Path) error) string {
		dir := filepath.Join(t.TempDir(), "with:colon")
		path, err := layout.Write(dir, empty.Index)
		testkit.Must(t, err, add(path))
		return "oci:" + dir
	}
	const colons = "registry.example:5000/site/compute:stable"
	twice := write(func(p layout.Path) error {
		testkit.Must(t, p.AppendImage(amd, named("v1")), p.AppendImage(amd, named(colons)))
		return p.AppendImage(arm, named("v1"))
	})
	nested := write(func(p layout.Path) error {
		return p.AppendIndex(mutate.AppendManifests(empty.Index,
			mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Annotations: map[string]string{
				"io.containerd.image.name": "other"}}},
			mutate.IndexAddendum{Add: amd, Descriptor: v1.Descriptor{Annotations: map[string]string{
				"org.opencontainers.image.ref.name": "v1"}}}))
	})
	uname := write(func(p layout.Path) error {
		return p.AppendImage(amd, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "x86_64"}))
	})
	for master, want := range map[string]string{
		twice: "amd64", twice + ":v1": "amd64", twice + ":" + colons: "amd64",
		nested + ":v1": "amd64", nested + ":other": "other", uname: "amd64",
	} {
		if got := l.contents(l.image(master).capture().Version)["arch"]; got != want {
			t.Errorf("%s: %q, want %q", master, got, want)
		}
	}
	different := write(func(p layout.Path) error {
		testkit.Must(t, p.AppendImage(amd, named("v1")))
		return p.AppendImage(other, named("v1"))
	})
	refused(t, "one name twice", l.image(different+":v1"), `2 different images "v1"`, "sha256:")
}
