package inspect

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/testkit"
)

// files is a version in memory.
type files struct{ fstest.MapFS }

func (f files) Entry(name string) (image.Entry, error) {
	info, err := f.Lstat(name)
	if err != nil {
		return image.Entry{}, err
	}
	e := image.Entry{Type: image.Regular, Mode: uint32(info.Mode().Perm())}
	if info.IsDir() {
		e.Type = image.Directory
	}
	return e, nil
}

func symlink(target string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte(target), Mode: fs.ModeSymlink | 0o777}
}

// program returns an ELF file that needs an interpreter.
func program(t *testing.T, interpreter string) *fstest.MapFile {
	t.Helper()
	var b bytes.Buffer
	const head, size = 64, 56
	text := interpreter + "\x00"
	testkit.Must(t, binary.Write(&b, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_DYN), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: head, Ehsize: head,
		Phentsize: size, Phnum: 1,
	}), binary.Write(&b, binary.LittleEndian, elf.Prog64{
		Type: uint32(elf.PT_INTERP), Off: head + size, Filesz: uint64(len(text)), Memsz: uint64(len(text)),
	}))
	b.WriteString(text)
	return &fstest.MapFile{Data: b.Bytes(), Mode: 0o755}
}

// kinds returns the kinds and paths of warnings, and checks that each says what to do.
func kinds(t *testing.T, list []control.Warning) (out []string) {
	t.Helper()
	for _, w := range list {
		if w.Hint == "" || w.Text == "" {
			t.Errorf("%+v does not say what to do", w)
		}
		out = append(out, string(w.Kind)+" "+w.Path)
	}
	return out
}

func TestWhatBreaksNodesIsFound(t *testing.T) {
	dir := func(mode fs.FileMode) *fstest.MapFile { return &fstest.MapFile{Mode: fs.ModeDir | mode} }
	sound := func() files {
		return files{fstest.MapFS{
			"etc": dir(0o755), "usr": dir(0o755), "lib": symlink("usr/lib"), "usr/lib/ld.so": {},
			"sbin/init": program(t, "/lib/ld.so"), "etc/systemd/system/multi-user.target.wants/ssh.service": {},
			"boot/vmlinuz-6.1.0-57-amd64": {}, "usr/lib/modules/6.1.0-57-amd64/modules.dep": {},
			"boot/vmlinuz-6.1.0-56-amd64": {}, "usr/lib/modules/6.1.0-56-amd64/modules.dep": {},
		}}
	}
	root := image.Entry{Type: image.Directory, Mode: 0o755}
	put := func(name string) func(files, *image.Entry) {
		return func(f files, _ *image.Entry) { f.MapFS[name] = &fstest.MapFile{} }
	}
	for name, tt := range map[string]struct {
		change func(files, *image.Entry)
		want   []string
	}{
		"nothing":           {func(files, *image.Entry) {}, nil},
		"nobody enters":     {func(_ files, r *image.Entry) { r.Mode = 0o700 }, []string{"mode /"}},
		"everybody writes":  {func(_ files, r *image.Entry) { r.Mode = 0o777 }, []string{"mode /"}},
		"shifted owners":    {func(_ files, r *image.Entry) { r.UID = 100000 }, []string{"mode /"}},
		"nobody reads /etc": {func(f files, _ *image.Entry) { f.MapFS["etc"] = dir(0o750) }, []string{"mode /etc"}},
		"labels":            {put(".autorelabel"), []string{"boot /.autorelabel"}},
		"no dynamic linker": {func(f files, _ *image.Entry) { f.MapFS["lib"] = dir(0o755) },
			[]string{"boot /sbin/init"}},
		"snapshots": {put(".snapshots/1/x"), []string{"odd /.snapshots"}},
		"a manager of networks": {put("etc/systemd/system/a.wants/connman.service"),
			[]string{"boot /etc/systemd/system"}},
		"a second flavour": {func(f files, _ *image.Entry) {
			f.MapFS["boot/vmlinuz-6.1.0-58-cloud-amd64"] = &fstest.MapFile{}
			f.MapFS["usr/lib/modules/6.1.0-58-cloud-amd64/modules.dep"] = &fstest.MapFile{}
		}, []string{"kernels /boot/vmlinuz-6.1.0-57-amd64"}},
	} {
		f, r := sound(), root
		tt.change(f, &r)
		if d := cmp.Diff(tt.want, kinds(t, append(Attributes(f, &r), Version(f)...))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	old := files{fstest.MapFS{"var/lib/rpm/Packages": {Data: []byte("x")}}}
	if got := kinds(t, Databases(old)); !slices.Equal(got, []string{"packages "}) {
		t.Errorf("an old database: %q", got)
	}
}

func TestCapabilitiesAreOneWarning(t *testing.T) {
	var c Changes
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		e := &image.Entry{Type: image.Regular, Xattrs: []image.Xattr{{Name: "security.capability"}}}
		c.Add("usr/bin/"+name, nil, e, nil)
	}
	c.Add("plain", nil, &image.Entry{Type: image.Regular}, nil)
	list := c.Warnings()
	if got := kinds(t, list); !slices.Equal(got, []string{"capabilities /usr/bin/a"}) ||
		!strings.HasSuffix(list[0].Text, "/usr/bin/e and 2 more") {
		t.Errorf("got %+v", list)
	}
}

func TestADirectoryInThePlaceOfALinkIsFound(t *testing.T) {
	before := files{fstest.MapFS{"usr/lib/x": {}, "lib": symlink("usr/lib"), "dangling": symlink("nowhere")}}
	var c Changes
	for _, name := range []string{"lib", "dangling"} {
		c.Add(name, &image.Entry{Type: image.Symlink, Target: "usr/lib"}, &image.Entry{Type: image.Directory}, before)
	}
	list := c.Warnings()
	got := kinds(t, list)
	if !slices.Equal(got, []string{"replaced /lib"}) || !strings.Contains(list[0].Hint, "/usr/lib") {
		t.Errorf("got %+v", list)
	}
}

func FuzzInterpreter(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := interpreterOf(bytes.NewReader(b)); len(got) > 4096 {
			t.Errorf("%d bytes", len(got))
		}
	})
}
