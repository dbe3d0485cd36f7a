package capture

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/capture/remote"
	"dim/internal/image"
	"dim/internal/testkit"
)

// overSSH returns a lab whose master is the same directory by ssh, from an sshd that the test runs on loopback.
func (l *lab) overSSH() *lab {
	l.t.Helper()
	testkit.NeedRoot(l.t, "owners, devices, trusted xattrs and mounts")
	config := startSSHD(l.t)
	other := l.withMaster("ssh://golden" + l.o.Dir)
	other.o.SSHConfig = config
	return other
}

// startSSHD returns the configuration of a client that may log in as "golden".
func startSSHD(t *testing.T) (config string) {
	t.Helper()
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		sshd = "/usr/sbin/sshd"
	}
	if _, err := os.Stat(sshd); err != nil {
		t.Skip("needs sshd, of Debian's openssh-server")
	}
	dir := t.TempDir()
	testkit.Must(t, os.Chmod(filepath.Dir(dir), 0o755), os.MkdirAll("/run/sshd", 0o755))
	for _, name := range []string{"host", "user"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f",
			filepath.Join(dir, name)).CombinedOutput(); err != nil {
			t.Skipf("ssh-keygen: %v: %s", err, out)
		}
	}
	var port string
	for range 10 { // the port that was free may be taken meanwhile
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.Must(t, err)
		_, port, err = net.SplitHostPort(ln.Addr().String())
		testkit.Must(t, err, ln.Close())
		if runSSHD(t, sshd, dir, port) {
			break
		}
	}
	host, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	testkit.Must(t, err, os.WriteFile(filepath.Join(dir, "known"), []byte("golden "+string(host)), 0o600))
	config = filepath.Join(dir, "config")
	testkit.Must(t, os.WriteFile(config, fmt.Appendf(nil, `Host golden
HostName 127.0.0.1
HostKeyAlias golden
User root
Port %s
IdentityFile %s/user
IdentitiesOnly yes
UserKnownHostsFile %s/known
GlobalKnownHostsFile none
`, port, dir, dir), 0o600))
	return config
}

// runSSHD starts an sshd that ends with the test, and reports whether it runs.
func runSSHD(t *testing.T, sshd, dir, port string) bool {
	conf := filepath.Join(dir, "sshd_config")
	testkit.Must(t, os.WriteFile(conf, fmt.Appendf(nil, `ListenAddress 127.0.0.1:%s
HostKey %s/host
AuthorizedKeysFile %s/user.pub
PidFile none
StrictModes no
UsePAM %s
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserEnvironment no
SetEnv HOME=%s
`, port, dir, dir, pam(), dir), 0o600)) // root's own .bashrc can take seconds for each command
	var log bytes.Buffer
	cmd := exec.Command(sshd, "-D", "-e", "-f", conf)
	cmd.Stderr = &log
	testkit.Must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Logf("sshd: %v: %s", err, log.String())
			return false
		default:
		}
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			continue
		}
		c.Close()
		t.Cleanup(func() { cmd.Process.Kill(); <-ended })
		return true
	}
	cmd.Process.Kill()
	<-ended
	t.Fatalf("sshd does not come up: %s", log.String())
	return false
}

// pam returns "yes" if sshd without PAM would refuse root because its account is locked.
func pam() string {
	b, _ := os.ReadFile("/etc/shadow")
	if strings.HasPrefix(string(b), "root:!") {
		return "yes"
	}
	return "no"
}

func TestARemoteMasterIsCapturedLikeALocalOne(t *testing.T) {
	l := newLab(t)
	other := l.overSSH()
	l.odd()
	l.write("dir/ leading 'quote\" and * \\ [x]? %s", "names")
	l.write("dir/-rf", "an option?")
	l.exclude("/tmp/*", "/dir/*/depth")
	other.o.Exclude = l.o.Exclude
	want := l.capture().Version
	got := other.capture()
	if got.Version.Digest != want.Digest {
		t.Errorf("differs (-directory +ssh): %s", l.differences(want, got.Version))
	}
	if got.Version.Files != want.Files || got.Version.Bytes != want.Bytes {
		t.Errorf("%d files, %d bytes; the directory has %d, %d", got.Version.Files, got.Version.Bytes, want.Files,
			want.Bytes)
	}
	if len(got.Problems) > 0 {
		t.Errorf("problems: %v", got.Problems)
	}
	l.sound()
}

func TestOnlyChangedFilesAreSent(t *testing.T) {
	l := newLab(t)
	other := l.overSSH()
	for i := range 50 {
		l.write(fmt.Sprintf("d%d/f%d", i%5, i), fmt.Sprint(i))
	}
	testkit.Must(t, os.Link(l.path("d0/f0"), l.path("d1/same")))
	old := time.Now().Add(-time.Hour)
	testkit.Must(t, os.Chtimes(l.path("d2/f2"), old, old))
	if r := other.capture(); r.FilesRead != 50 {
		t.Errorf("first: %d files", r.FilesRead)
	}
	n := other.savedNotes()
	n.Started += 3600 // new files are old enough to be trusted
	testkit.Must(t, other.o.saveRemoteNotes(n))
	if r := other.capture(); r.Changed || r.FilesRead != 0 {
		t.Errorf("unchanged: %+v", r)
	}
	testkit.Must(t, other.o.saveRemoteNotes(n))
	l.write("d2/f2", "9") // as long as before
	testkit.Must(t, os.Chtimes(l.path("d2/f2"), old, old), os.Remove(l.path("d1/same")),
		os.Chmod(l.path("d3/f3"), 0o600))
	l.write("d4/new", "new")
	r := other.capture()
	if r.FilesRead != 4 { // f0 has lost a name
		t.Errorf("%d files were read", r.FilesRead)
	}
	want := l.capture().Version
	if r.Version.Digest != want.Digest {
		t.Errorf("differs (-directory +ssh): %s", l.differences(want, r.Version))
	}
}

// savedNotes reads the notes of the last capture.
func (l *lab) savedNotes() *remoteNotes {
	b, err := os.ReadFile(l.o.remoteNotesPath())
	testkit.Must(l.t, err)
	n, err := parseRemoteNotes(b)
	testkit.Must(l.t, err)
	_, n.records, _ = bytes.Cut(b, []byte("\n"))
	return n
}

func TestARemoteFileThatChangesIsReadAgainOrReported(t *testing.T) {
	l := newLab(t)
	other := l.overSSH()
	l.write("busy", strings.Repeat("0", 1<<20))
	l.write("calm", "1")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_ = os.WriteFile(l.path("busy"), bytes.Repeat([]byte{byte('0' + i%10)}, 1<<20), 0o644)
			}
		}
	})
	r := other.capture()
	close(stop)
	wg.Wait()
	if len(r.Problems) != 1 || r.Problems[0].Path != "busy" || r.Problems[0].Kind != Changing {
		t.Errorf("problems: %v", r.Problems)
	}
	if got := l.entries(r.Version)["calm"]; got == nil || got.Digest != image.Sum([]byte("1")) {
		t.Errorf("calm: %+v", got)
	}
}

func TestMountPointsOfARemoteMasterAreNotCrossed(t *testing.T) {
	l := newLab(t)
	other := l.overSSH()
	testkit.Must(t, os.MkdirAll(l.path("mnt/a b"), 0o755))
	l.write("over", "below")
	for _, args := range [][]string{{"-t", "tmpfs", "none", l.path("mnt/a b")},
		{"--bind", "/etc/passwd", l.path("over")}} {
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Skipf("mount: %v: %s", err, out)
		}
		t.Cleanup(func() { exec.Command("umount", args[len(args)-1]).Run() })
	}
	l.write("mnt/a b/inside", "no")
	want, got := l.capture(), other.capture()
	if got.Version.Digest != want.Version.Digest {
		t.Errorf("differs (-directory +ssh): %s", l.differences(want.Version, got.Version))
	}
	if d := cmp.Diff(texts(want), texts(got)); d != "" || len(got.Problems) != 2 {
		t.Errorf("problems (-directory +ssh): %s", d)
	}
}

func TestAFailedConnectionHasAHint(t *testing.T) {
	l := newLab(t)
	other := l.overSSH()
	l.write("file", "1")
	config, err := os.ReadFile(other.o.SSHConfig)
	testkit.Must(t, err)
	dir := filepath.Dir(other.o.SSHConfig)
	for name, tc := range map[string]struct {
		old, new, place, text, hint string
	}{
		"unknown host key": {dir + "/known", dir + "/none", "", "Host key verification failed", "fingerprint"},
		"refused key":      {dir + "/user", dir + "/host", "", "Permission denied", "ssh-copy-id"},
		"no directory":     {"", "", "ssh://golden/no/such/directory", "cd", ""},
		"no sshd":          {"Port", "Port 1 #", "", "refused", "sshd"},
	} {
		o := other.o
		o.SSHConfig = filepath.Join(t.TempDir(), "config")
		testkit.Must(t, os.WriteFile(o.SSHConfig, []byte(strings.Replace(string(config), tc.old, tc.new, 1)), 0o600))
		if tc.place != "" {
			o.Master = tc.place
		}
		_, err := Run(context.Background(), l.store, o)
		e, ok := errors.AsType[*remote.Error](err)
		if !ok || !strings.Contains(err.Error(), tc.text) || !strings.Contains(e.Hint, tc.hint) {
			t.Errorf("%s: %v (%+v)", name, err, e)
		}
	}
	if _, err := l.store.Resolve(image.Ref{Image: other.o.Image}); err == nil {
		t.Error("a version was made")
	}
}

// cutAfter starts a proxy to an sshd that breaks a connection after a number of bytes from the server. It returns the
// configuration of a client of the proxy.
func cutAfter(t *testing.T, config string, bytes int64) string {
	t.Helper()
	b, err := os.ReadFile(config)
	testkit.Must(t, err)
	_, port, _ := strings.Cut(string(b), "Port ")
	port, _, _ = strings.Cut(port, "\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				client.Close()
				continue
			}
			go io.Copy(server, client)
			go func() {
				io.CopyN(client, server, bytes)
				client.Close()
				server.Close()
			}()
		}
	}()
	_, proxy, err := net.SplitHostPort(ln.Addr().String())
	testkit.Must(t, err)
	cut := filepath.Join(t.TempDir(), "config")
	testkit.Must(t, os.WriteFile(cut, []byte(strings.Replace(string(b), "Port "+port, "Port "+proxy, 1)), 0o600))
	return cut
}

func TestABrokenConnectionMakesNoVersion(t *testing.T) {
	l := newLab(t)
	other := l.overSSH()
	content := make([]byte, 2<<20)
	_, _ = rand.Read(content)
	l.write("a", "1")
	l.write("large", string(content))
	whole := other.o.SSHConfig
	other.o.SSHConfig = cutAfter(t, whole, 1<<20)
	_, err := Run(context.Background(), l.store, other.o)
	if err == nil {
		t.Fatal("half of a master is a version")
	}
	t.Log(err)
	if _, err := l.store.Resolve(image.Ref{Image: other.o.Image}); err == nil {
		t.Error("a version was made")
	}
	other.o.SSHConfig = whole
	if r := other.capture(); !r.Changed {
		t.Errorf("the next capture: %+v", r)
	}
	l.sound()
}
