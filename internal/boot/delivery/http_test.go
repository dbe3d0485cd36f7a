package delivery

import (
	"context"
	"errors"
	"flag"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/image"
)

// update makes the tests write the golden files.
var update = flag.Bool("update", false, "write the golden files anew")

// call asks the handler as the superuser of the machine with that address.
func (f *fixture) call(method, path, from, body string, header ...string) *httptest.ResponseRecorder {
	return f.callFrom(netip.AddrPortFrom(addr(from), 711).String(), method, path, body, header...)
}

func (f *fixture) callFrom(remote, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = remote
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	return w
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestBootScripts(t *testing.T) {
	tests := []struct {
		file, server, from string
		set                func(*fixture)
		stage              string
	}{
		{"boot.ipxe", "is1", "10.77.0.11", func(*fixture) {}, "script"},
		{"ports.ipxe", "is2", "10.77.0.12", func(f *fixture) {
			f.cluster.Images[0].Kernel.Append = "-quiet -fstab=no console=ttyS0,115200 -- -b"
		}, "script"},
		{"push.ipxe", "is1", "10.77.0.11", func(f *fixture) { f.cluster.Images[0].Push = true }, "script"},
		{"no-version.ipxe", "is1", "10.77.0.11", func(f *fixture) { f.payloads.err = errNoVersion },
			"script! " + errNoVersion.Error()},
		{"bad-append.ipxe", "is1", "10.77.0.11", func(f *fixture) { f.cluster.Images[0].Kernel.Append = "a || shell" },
			`script! the kernel parameter "||" of image compute cannot be passed on by the loader`},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			f := newFixture(t, cluster.ServerName(tt.server))
			tt.set(f)
			w := f.call("GET", "/boot/ipxe", tt.from, "")
			if w.Code != http.StatusOK {
				t.Fatalf("status %d: %s", w.Code, w.Body)
			}
			golden(t, tt.file, w.Body.String())
			node := map[string]cluster.NodeName{"10.77.0.11": "n01", "10.77.0.12": "n02"}[tt.from]
			if s := f.stage(node); s != tt.stage {
				t.Errorf("stage %q, want %q", s, tt.stage)
			}
		})
	}
}

func TestWordsThatTheImageNeedsComeBeforeThoseOfTheDescription(t *testing.T) {
	f := newFixture(t, "is1")
	f.words = []string{"nfs.enable_ino64=0"}
	s := f.call("GET", "/boot/ipxe", "10.77.0.11", "").Body.String()
	if !strings.Contains(s, " quiet nfs.enable_ino64=0 console=ttyS0 ") {
		t.Error(s)
	}
	f.cluster.Images[0].Kernel.Append = "-nfs.enable_ino64=0"
	if s := f.call("GET", "/boot/ipxe", "10.77.0.11", "").Body.String(); strings.Contains(s, "ino64") {
		t.Errorf("a word that was removed: %s", s)
	}
}

func TestACommandLineThatIsTooLongIsRefused(t *testing.T) {
	f := newFixture(t, "is1")
	f.cluster.Images[0].Kernel.Append = strings.Repeat("x", 2047)
	s := f.call("GET", "/boot/ipxe", "10.77.0.11", "").Body.String()
	if !strings.Contains(s, "kernels take 2047") || strings.Contains(s, "vmlinuz") {
		t.Error(s)
	}
}

func TestErrorsAreShownAndNotInterpretedByTheLoader(t *testing.T) {
	f := newFixture(t, "is1")
	f.payloads.err = errors.New("bad\nshell ${x} || shell && # é")
	s := f.call("GET", "/boot/ipxe", "10.77.0.11", "").Body.String()
	if !strings.HasPrefix(s, "#!ipxe\necho DIM: n01 cannot boot: bad shell .{x} .. shell .. .  \n") {
		t.Error(s)
	}
}

func TestFilesAreServedOnlyToTheirNodes(t *testing.T) {
	kernel := "/boot/kernel/" + image.Sum([]byte("a kernel")).String()
	initramfs := "/boot/initramfs/" + image.Sum([]byte("an initramfs")).String()
	tests := []struct {
		name, method, path, from string
		status                   int
		body                     string
		stage                    string
	}{
		{"the kernel", "GET", kernel, "10.77.0.11", 200, "a kernel", "kernel fetched by the loader"},
		{"the kernel's size", "HEAD", kernel, "10.77.0.11", 200, "", ""},
		{"the initramfs", "GET", initramfs, "10.77.0.11", 200, "an initramfs", "initramfs fetched by the loader"},
		{"a loader", "GET", "/boot/loader/snponly.efi", "10.77.0.11", 200, "this is snponly.efi",
			"loader snponly.efi by HTTP"},
		{"a loader that is a link out of the package", "GET", "/boot/loader/ipxe.efi", "10.77.0.11", 200,
			"this is ipxe.efi", "loader ipxe.efi by HTTP"},
		{"another file of the directory", "GET", "/boot/loader/secret", "10.77.0.11", 404, "", ""},
		{"a way out of the directory", "GET", "/boot/loader/..%2f..%2fetc%2fpasswd", "10.77.0.11", 404, "", ""},
		{"a kernel that was replaced", "GET", "/boot/kernel/" + image.Sum(nil).String(), "10.77.0.11", 404, "", ""},
		{"the initramfs as a kernel", "GET", strings.Replace(initramfs, "initramfs", "kernel", 1), "10.77.0.11", 404,
			"", ""},
		{"an unknown address", "GET", kernel, "10.77.0.99", 403, "", ""},
		{"another server's node", "GET", kernel, "10.77.0.12", 403, "", ""},
		{"loopback without a name", "GET", kernel, "127.0.0.1", 403, "", ""},
		{"loopback with a name", "GET", kernel + "?node=n01", "127.0.0.1", 200, "a kernel", ""},
		{"a head with a name", "GET", kernel + "?node=n01", "10.77.0.1", 200, "a kernel", ""},
		{"an image server with a name", "GET", kernel + "?node=n01", "10.77.0.2", 403, "", ""},
		{"a node that names another one", "GET", "/boot/ipxe?node=n01", "10.77.0.99", 403, "", ""},
		{"something else", "GET", "/boot/nothing", "10.77.0.11", 404, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "is1")
			w := f.call(tt.method, tt.path, tt.from, "")
			if w.Code != tt.status {
				t.Fatalf("status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if tt.status == 200 && w.Body.String() != tt.body {
				t.Errorf("body %q, want %q", w.Body, tt.body)
			}
			if s := f.stage("n01"); s != tt.stage {
				t.Errorf("stage %q, want %q", s, tt.stage)
			}
		})
	}
}

func TestANodeThatAsksTheWrongServerGetsTheReason(t *testing.T) {
	f := newFixture(t, "is1")
	w := f.call("POST", "/boot/stage", "10.77.0.12", "")
	const want = "is2 serves n02: this server does not, because it does not have the node's layer\n"
	if w.Code != http.StatusForbidden || w.Body.String() != want {
		t.Errorf("status %d, %q", w.Code, w.Body)
	}
}

func TestPartsOfAKernelAreServed(t *testing.T) {
	f := newFixture(t, "is1")
	w := f.call("GET", "/boot/kernel/"+image.Sum([]byte("a kernel")).String(), "10.77.0.11", "", "Range", "bytes=2-4")
	if w.Code != http.StatusPartialContent || w.Body.String() != "ker" {
		t.Errorf("status %d, %q", w.Code, w.Body)
	}
}

func TestStageReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, "is1")
		start := time.Now()
		f.call("GET", "/boot/ipxe", "10.77.0.11", "")
		time.Sleep(10 * time.Second)
		w := f.call("POST", "/boot/stage", "10.77.0.11", `{"stage":"initramfs","ago":4.5}
{"stage":"link","detail":"eth0 up\u001b[2J","ago":2}{"stage":"address","detail":"10.77.0.11/24"}
{"stage":"mount","error":"no answer from 10.77.0.1","unknown":[1]}`)
		if w.Code != http.StatusNoContent {
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
		at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
		want := []boot.Event{
			{Stage: boot.StageScript},
			{Stage: boot.StageInitramfs, Time: at(5.5)},
			{Stage: boot.StageLink, Time: at(8), Detail: "eth0 up [2J"},
			{Stage: boot.StageAddress, Time: at(10), Detail: "10.77.0.11/24"},
			{Stage: boot.StageMount, Time: at(10), Error: "no answer from 10.77.0.1"},
		}
		if d := cmp.Diff(want, f.events["n01"]); d != "" {
			t.Error(d)
		}
	})
}

func TestTextsOfANodeAreBounded(t *testing.T) {
	f := newFixture(t, "is1")
	f.call("POST", "/boot/stage", "10.77.0.11", `{"stage":"mount","error":"`+strings.Repeat("x", 1000)+`"}`)
	if got := f.events["n01"][0].Error; len(got) != maxText {
		t.Errorf("%d bytes are kept", len(got))
	}
}

func TestBadStageReportsAreRefused(t *testing.T) {
	for _, body := range []string{
		`{"stage":"running"}`, `{"stage":""}`, `{`, `[]`, `{"stage":"link"}x`,
		`{"stage":"link","detail":"` + strings.Repeat("x", 5000) + `"}`,
	} {
		f := newFixture(t, "is1")
		w := f.call("POST", "/boot/stage", "10.77.0.11", body)
		if w.Code != http.StatusBadRequest || f.stage("n01") != "" {
			t.Errorf("%.40s: status %d, stage %q", body, w.Code, f.stage("n01"))
		}
	}
}

func FuzzStageReports(f *testing.F) {
	f.Add(`{"stage":"link","ago":1e999}`)
	f.Add(`{"stage":"mount","error":"\u0000\ud800","ago":-1}{"stage":"handover"}`)
	f.Fuzz(func(t *testing.T, body string) {
		reports, err := parseReports(strings.NewReader(body))
		for _, r := range reports {
			if err == nil && !(r.Ago >= 0 && r.Ago <= 3600) {
				t.Errorf("ago %v", r.Ago)
			}
		}
	})
}

func TestOpenTFTP(t *testing.T) {
	kernel := "boot/kernel/" + image.Sum([]byte("a kernel")).String()
	initramfs := "boot/initramfs/" + image.Sum([]byte("an initramfs")).String()
	config := "default dim\nlabel dim\n  kernel /" + kernel + "\n  initrd /" + initramfs +
		"\n  append initrd=initramfs BOOTIF=01-52-54-00-4d-00-01 dim.node=n01 dim.server=10.77.0.1" +
		" dim.nfs=10.77.0.1:2049:/nodes/n01 dim.http=10.77.0.1:80 dim.if=eth0 fstab=no quiet console=ttyS0\n"
	tests := []struct {
		name, file, from string
		want             string
		err              error
	}{
		{"a loader", "undionly.kpxe", "10.77.0.11", "this is undionly.kpxe", nil},
		{"a loader with a slash", "/snponly.efi", "10.77.0.11", "this is snponly.efi", nil},
		{"a loader with an end mark", "snponly.efi\xff", "10.77.0.11", "this is snponly.efi", nil},
		{"a configuration", "/pxelinux.cfg/default", "10.77.0.11", config, nil},
		{"a kernel", "/" + kernel, "10.77.0.11", "a kernel", nil},
		{"another file of the directory", "secret", "10.77.0.11", "", fs.ErrNotExist},
		{"a way out", "../../../etc/passwd", "10.77.0.11", "", fs.ErrNotExist},
		{"a loader that is not installed", "ipxe-arm64.efi", "10.77.0.11", "", fs.ErrNotExist},
		{"the directory", "", "10.77.0.11", "", fs.ErrNotExist},
		{"an unknown address", "undionly.kpxe", "10.77.0.99", "", fs.ErrPermission},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "is1")
			l, err := f.OpenTFTP(context.Background(), netip.AddrPortFrom(addr(tt.from), 2070), tt.file)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			defer l.Close()
			got, err := io.ReadAll(io.NewSectionReader(l, 0, l.Size()))
			if err != nil || string(got) != tt.want {
				t.Errorf("%q (%v), want %q", got, err, tt.want)
			}
		})
	}
}

func FuzzOpenTFTP(f *testing.F) {
	for _, name := range []string{
		"/undionly.kpxe\xff", `\boot\kernel\x`, "pxelinux.cfg/01-52-54", "../../etc/passwd", "boot/initramfs/", "",
	} {
		f.Add(name)
	}
	fx := newFixture(f, "is1")
	f.Fuzz(func(t *testing.T, name string) {
		l, err := fx.OpenTFTP(context.Background(), netip.AddrPortFrom(addr("10.77.0.11"), 2070), name)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%q: %v", name, err)
			}
			return
		}
		l.Close()
	})
}

func TestANodeThatRunsAndAsksDoesNotBoot(t *testing.T) {
	f := newFixture(t, "is1")
	f.FromDHCP = true
	f.Report("n01", boot.Event{Stage: boot.StageRunning})
	kernel := "/boot/kernel/" + image.Sum([]byte("a kernel")).String()
	for _, path := range []string{"/boot/ipxe", kernel, "/boot/loader/snponly.efi"} {
		if w := f.call("GET", path, "10.77.0.11", ""); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	for _, name := range []string{"pxelinux.cfg/default", kernel, "snponly.efi"} {
		if _, err := f.OpenTFTP(t.Context(), netip.AddrPortFrom(addr("10.77.0.11"), 2070), name); err != nil {
			t.Errorf("%s by TFTP: %v", name, err)
		}
	}
	if s := f.stage("n01"); s != "running" || f.begun != 0 {
		t.Errorf("stage %q, %d boots begun", s, f.begun)
	}
	f.Report("n01", boot.Event{Stage: boot.StageDHCP, Detail: "iPXE"})
	f.call("GET", "/boot/ipxe", "10.77.0.11", "")
	if s := f.stage("n01"); s != "script" || f.begun != 1 {
		t.Errorf("after DHCP: stage %q, %d boots begun", s, f.begun)
	}
}

func TestReportsOfOrdinaryUsersAreRefused(t *testing.T) {
	f := newFixture(t, "is1")
	w := f.callFrom("10.77.0.11:4711", "POST", "/boot/stage", `{"stage":"mount"}`)
	if w.Code != http.StatusForbidden || f.stage("n01") != "" {
		t.Errorf("%d %s: stage %q", w.Code, w.Body, f.stage("n01"))
	}
}
