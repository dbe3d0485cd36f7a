package bootfiles

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dim/internal/boot"
	"dim/internal/boot/delivery"
	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/confine"
	"dim/internal/image"
	"dim/internal/initramfs"
	"dim/internal/store"
	"dim/internal/testkit"
)

const release = "6.1.0-1-amd64"

// site is a store with a version that can boot, and the directories of a Builder.
type site struct {
	t       *testing.T
	store   *store.Store
	options Options
	version image.Version
	number  func(context.Context) (int, error)
	log     bytes.Buffer // what Builders logged
}

const readerName = "dim-reader"

// TestMain runs the processes that the tests let read.
func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, map[string]confine.Task{TaskName: Task()}))
	}
	os.Exit(m.Run())
}

func newSite(t *testing.T) *site {
	t.Helper()
	testkit.NeedRoot(t, "it captures owners")
	dir := t.TempDir()
	s := &site{t: t, number: testkit.Counter()}
	s.store = testkit.Value(store.Open(filepath.Join(dir, "store"), store.Options{}))(t)
	t.Cleanup(func() { testkit.Must(t, s.store.Close()) })
	s.options = Options{
		Dir: filepath.Join(dir, "boot"), InitDir: dir, Store: s.store, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Reader: confine.Program{Argv: []string{readerName}},
	}
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "dim-init-amd64"), []byte("an init"), 0o600))
	s.version = s.bootable("a kernel")
	return s
}

// bootable makes a version that has a kernel.
func (s *site) bootable(kernel string) image.Version {
	s.t.Helper()
	return s.capture(map[string]string{
		"boot/vmlinuz-" + release:                     kernel,
		"lib/modules/" + release + "/modules.dep":     "",
		"lib/modules/" + release + "/modules.builtin": "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\n",
	})
}

// capture makes a version of some files.
func (s *site) capture(files map[string]string) image.Version {
	s.t.Helper()
	master := s.t.TempDir()
	for path, text := range files {
		full := filepath.Join(master, path)
		testkit.Must(s.t, os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644))
	}
	o := capture.Options{Image: "compute", Dir: master, Log: slog.New(slog.DiscardHandler), Reserve: s.number}
	return testkit.Value(capture.Run(s.t.Context(), s.store, o))(s.t).Version
}

// builder returns a new Builder, as after a restart.
func (s *site) builder() *Builder {
	b := New(s.options)
	s.t.Cleanup(b.Close)
	return b
}

// built returns how often an initramfs was built.
func (s *site) built() int { return strings.Count(s.log.String(), "initramfs made") }

func compute() *cluster.Image { return &cluster.Image{Name: "compute", Arch: "amd64"} }

// content reads an asset, and checks that it is what its digest and size say.
func content(t *testing.T, a delivery.Asset) []byte {
	t.Helper()
	f := testkit.Value(a.Open())(t)
	defer f.Close()
	b := testkit.Value(io.ReadAll(f))(t)
	if image.Sum(b) != a.Digest || int64(len(b)) != a.Size {
		t.Errorf("%d bytes of digest %v; want %d of %v", len(b), image.Sum(b).Short(), a.Size, a.Digest.Short())
	}
	return b
}

func TestAnInitramfsIsBuiltOnceForAll(t *testing.T) {
	s := newSite(t)
	b := s.builder()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			p, err := b.payload(t.Context(), s.version, compute())
			if err != nil {
				t.Error(err)
				return
			}
			if string(content(t, p.Kernel)) != "a kernel" || len(content(t, p.Initramfs)) == 0 {
				t.Error("the payload has another content")
			}
		})
	}
	all.Wait()
	if got := s.built(); got != 1 {
		t.Errorf("built %d times", got)
	}
}

func TestABuiltInitramfsIsKept(t *testing.T) {
	s := newSite(t)
	first := testkit.Value(s.builder().payload(t.Context(), s.version, compute()))(t)
	want := content(t, first.Initramfs)
	files := testkit.Value(filepath.Glob(filepath.Join(s.options.Dir, "*.json")))(t)
	if len(files) != 1 {
		t.Fatalf("kept are %v", files)
	}
	kept := strings.TrimSuffix(files[0], ".json")
	write := func(path, text string) func() {
		return func() { testkit.Must(t, os.WriteFile(path, []byte(text), 0o600)) }
	}
	remove := func(path string) func() { return func() { testkit.Must(t, os.Remove(path)) } }
	for _, tt := range []struct {
		name   string
		damage func()
		builds int
	}{
		{"a restart", func() {}, 0},
		{"the file was cut", write(kept, "x"), 1},
		{"the file is gone", remove(kept), 1},
		{"its description is damaged", write(kept+".json", "{"), 1},
		{"its description is gone", remove(kept + ".json"), 1},
		{"another dim-init", write(filepath.Join(s.options.InitDir, "dim-init-amd64"), "another"), 1},
		{"the first dim-init again", write(filepath.Join(s.options.InitDir, "dim-init-amd64"), "an init"), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.built()
			tt.damage()
			p := testkit.Value(s.builder().payload(t.Context(), s.version, compute()))(t)
			got := content(t, p.Initramfs)
			if n := s.built() - before; n != tt.builds {
				t.Errorf("built %d times, want %d", n, tt.builds)
			}
			if (tt.name == "another dim-init") == bytes.Equal(got, want) {
				t.Errorf("%d bytes of digest %v", len(got), p.Initramfs.Digest.Short())
			}
		})
	}
}

func TestABuildGoesOnWhenItsCallerHasGone(t *testing.T) {
	s := newSite(t)
	b := s.builder()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // the build may be as fast as the caller is gone
		if _, err := b.payload(gone, s.version, compute()); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	testkit.Value(b.payload(t.Context(), s.version, compute()))(t)
	if got := s.built(); got != 1 {
		t.Errorf("built %d times", got)
	}
}

func TestWhatCannotBootIsTold(t *testing.T) {
	s := newSite(t)
	b := s.builder()
	empty := s.capture(map[string]string{"etc/motd": "no kernel here"})
	wanted := func(release string) *cluster.Image {
		im := compute()
		im.Kernel.Version = release
		return im
	}
	foreign := compute()
	foreign.Arch = "ppc64le"
	for range 2 { // the second time from what is known
		for _, tt := range []struct {
			name    string
			version image.Version
			image   *cluster.Image
			release string
		}{
			{"the only kernel", s.version, compute(), release},
			{"the kernel that is wanted", s.version, wanted(release), release},
			{"another one than is there", s.version, wanted("5.0"), ""},
			{"no kernel", empty, compute(), ""},
		} {
			got, err := b.Release(tt.version, tt.image)
			if got != tt.release || errors.Is(err, initramfs.ErrNoKernel) != (tt.release == "") {
				t.Errorf("%s: %q, %v", tt.name, got, err)
			}
		}
	}
	if _, err := b.payload(t.Context(), empty, compute()); !errors.Is(err, initramfs.ErrNoKernel) {
		t.Errorf("a version without a kernel: %v", err)
	}
	_, err := b.payload(t.Context(), s.version, foreign)
	if err == nil || !strings.Contains(err.Error(), "dim-init-ppc64le is not in "+s.options.InitDir) {
		t.Errorf("another architecture: %v", err)
	}
	if b.Installed("amd64") != nil || b.Installed("ppc64le") == nil {
		t.Errorf("amd64: %v, ppc64le: %v", b.Installed("amd64"), b.Installed("ppc64le"))
	}
}

// roots are Roots that note what they are asked, for a test of the order.
type roots struct {
	version image.Version
	err     error
	note    func(string)
}

func (r *roots) Begin(context.Context, *cluster.Node) { r.note("pin") }

func (r *roots) Boots(*cluster.Node) (image.Version, error) {
	r.note("version")
	return r.version, r.err
}

func TestABootBeginsInOrder(t *testing.T) {
	s := newSite(t)
	var steps []string
	r := &roots{version: s.version}
	r.note = func(step string) {
		if s.built() > 0 && !slices.Contains(steps, "build") {
			steps = append(steps, "build")
		}
		steps = append(steps, step)
	}
	var started boot.Event
	var kernel []byte
	meanwhile := func() {} // happens before the start is durable
	ready := make(chan struct{})
	close(ready)
	p := Payloads{Builder: s.builder(), Roots: r, Ready: ready, Started: func(n cluster.NodeName, e boot.Event) {
		meanwhile()
		started = e
		r.note("durable start of " + string(n))
	}}
	n := &cluster.Node{Name: "n01", Image: compute()}
	check := func(t *testing.T, call func() (delivery.Payload, error), wantErr bool, want ...string) {
		t.Helper()
		steps, started = nil, boot.Event{}
		out, err := call()
		if (err != nil) != wantErr || (out.Kernel.Open == nil) != wantErr {
			t.Fatalf("error %v", err)
		}
		if err == nil {
			kernel = content(t, out.Kernel)
		}
		if !slices.Equal(steps, want) {
			t.Errorf("steps %q, want %q", steps, want)
		}
	}
	begin := func() (delivery.Payload, error) { return p.Begin(t.Context(), n, boot.Event{Stage: boot.StageScript}) }

	t.Run("nothing is made durable when the version is not known", func(t *testing.T) {
		r.err = errors.New("no version")
		check(t, begin, true, "pin", "version")
		r.err = nil
	})
	t.Run("nothing is made durable when the build fails", func(t *testing.T) {
		n.Image.Arch = "ppc64le"
		check(t, begin, true, "pin", "version")
		n.Image.Arch = "amd64"
	})
	t.Run("first the pin, then the build, then the durable start", func(t *testing.T) {
		check(t, begin, false, "pin", "version", "build", "durable start of n01", "version")
		if started.Stage != boot.StageScript {
			t.Errorf("started with %+v", started)
		}
	})
	t.Run("a root that is switched meanwhile boots its own kernel", func(t *testing.T) {
		next := s.bootable("another kernel")
		meanwhile = func() { r.version = next }
		check(t, begin, false, "build", "pin", "version", "durable start of n01", "version",
			"version", "durable start of n01", "version")
		if string(kernel) != "another kernel" {
			t.Errorf("it boots %q", kernel)
		}
	})
	t.Run("a request that is no boot begins nothing", func(t *testing.T) {
		current := func() (delivery.Payload, error) { return p.Current(t.Context(), n) }
		check(t, current, false, "build", "version")
	})
}

func TestAnImageWithProgramsOf32BitsGetsShortIDs(t *testing.T) {
	s := newSite(t)
	b := s.builder()
	files := map[string]string{
		"boot/vmlinuz-" + release:                     "a kernel",
		"lib/modules/" + release + "/modules.dep":     "",
		"lib/modules/" + release + "/modules.builtin": "kernel/fs/nfs/nfs.ko\nkernel/fs/nfs/nfsv3.ko\n",
		"lib64/ld-linux-x86-64.so.2":                  "64 bits",
	}
	for _, tt := range []struct {
		loader string
		want   []string
	}{
		{"lib64/ld-linux-x86-64.so.2", nil},
		{"lib/ld-linux.so.2", []string{"nfs.enable_ino64=0"}},
	} {
		files[tt.loader] = "a loader"
		p := testkit.Value(b.payload(t.Context(), s.capture(files), compute()))(t)
		if !slices.Equal(p.Words, tt.want) {
			t.Errorf("%s: words %q, want %q", tt.loader, p.Words, tt.want)
		}
	}
}
