package nodefile

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
	"dim/internal/image"
)

var update = flag.Bool("update", false, "write the golden files")

// version is a version of an image: text by path; "-> target" is a link, "dir" a directory.
type version map[string]string

func (v version) Entry(name string) (image.Entry, error) {
	text, ok := v[name]
	target, link := strings.CutPrefix(text, "-> ")
	switch {
	case !ok:
		return image.Entry{}, &fs.PathError{Op: "lstat", Path: name, Err: fs.ErrNotExist}
	case link:
		return image.Entry{Type: image.Symlink, Target: target, Mode: 0o777}, nil
	case text == "dir":
		return image.Entry{Type: image.Directory, Mode: 0o755}, nil
	case strings.HasPrefix(text, "broken"):
		return image.Entry{}, errors.New("input/output error")
	}
	return image.Entry{Type: image.Regular, Mode: 0o640, GID: 4}, nil
}

func (v version) ReadFile(name string) ([]byte, error) {
	e, err := v.Entry(name)
	if err != nil {
		return nil, err
	}
	if e.Type == image.Symlink {
		return v.ReadFile(e.Target)
	}
	return []byte(v[name]), nil
}

const description = `<cluster name="lab" domain="lab.example">
<network name="boot" subnet="10.77.0.0/24" gateway="10.77.0.1" dns="10.77.0.1 10.77.0.2"/>
<network name="fast" subnet="10.78.0.0/16" mtu="9000"/>
<network name="bmc" subnet="10.79.0.0/16"/>
<server name="head" roles="head image">
<interface network="boot" address="10.77.0.1"/><interface network="fast" address="10.78.0.1"/>
</server>
<image name="plain" arch="amd64" master="dir:/m"/>
<image name="own" arch="amd64" master="dir:/m">
<file path="/etc/hostname">{{.Node.Name}}.{{.Cluster.Domain}}
</file>
<file path="/etc/hosts">{{range .Cluster.Nodes}}{{.Address}} {{.Name}}
{{end}}</file>
<file path="/etc/secret" mode="0400" owner="7:8">{{range 2000}}{{$.Node.Name}} {{end}}</file>
<file path="/etc/NetworkManager/conf.d">a file where a built-in wants a directory</file>
</image>
<image name="off" arch="amd64" master="dir:/m">%s</image>
<nodes name="n{i}" count="3" image="plain" servers="head">
<interface name="eth0" network="boot" address="10.77.0.{10+i}" mac="52:54:00:4d:00:{i:02x}"/>
<interface name="fast0" network="fast" address="10.78.1.{i}" mac="52:54:00:4e:00:{i:02x}"/>
<interface name="ipmi" network="bmc"/>
</nodes>
<node name="bare" image="plain" servers="head">
<interface name="eno1" network="boot" address="10.77.0.99"/></node>
</cluster>`

func parse(t testing.TB) *cluster.Cluster {
	t.Helper()
	var off strings.Builder
	for _, name := range builtin.Names() {
		fmt.Fprintf(&off, `<builtin name="%s" enabled="no"/>`, name)
	}
	c, err := cluster.Parse(cluster.Source{Name: "lab.xml", XML: fmt.Appendf(nil, description, off.String())})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func render(t testing.TB, imageName cluster.ImageName, lower Reader, node cluster.NodeName) *Set {
	t.Helper()
	c := parse(t)
	im, _ := c.Image(imageName)
	n, _ := c.Node(node)
	b, err := Prepare(NewMachines(c), im, lower, image.Time{Sec: 1_700_000_000, Nsec: 5})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Node(n)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// listing writes a set as text.
func listing(t testing.TB, s *Set) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, f := range s.Files() {
		text, err := s.Content(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if image.Sum(text) != f.Digest || uint64(len(text)) != f.Size {
			t.Errorf("%s: digest or size are not those of the content", f.Path)
		}
		fmt.Fprintf(&out, "=== /%s %04o %d:%d (%s)\n%s", f.Path, f.Mode, f.UID, f.GID, f.From, text)
	}
	return out.Bytes()
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// masters returns the relevant files of ordinary installations.
func masters(t testing.TB) map[string]version {
	return map[string]version{
		"debian": {
			"etc/fstab": read(t, "debian.fstab"), "etc/network/interfaces": read(t, "debian.interfaces"),
			"etc/hosts": read(t, "debian.hosts"), "etc/hostname": "golden\n", "etc/machine-id": "x\n",
			"var/lib/dbus/machine-id": "-> /etc/machine-id", "etc/resolv.conf": "nameserver 192.168.1.1\n",
			"lib/systemd/systemd-networkd": "elf", "lib/systemd/systemd": "elf",
			"lib/systemd/system/systemd-networkd-wait-online.service": "unit",
		},
		"ubuntu": {
			"etc/fstab": read(t, "ubuntu.fstab"), "etc/hosts": read(t, "debian.hosts"), "etc/machine-id": "x\n",
			"etc/crypttab": read(t, "ubuntu.crypttab"), "var/lib/dbus/machine-id": "x\n",
			"etc/resolv.conf":                  "-> ../run/systemd/resolve/stub-resolv.conf",
			"usr/lib/systemd/systemd-networkd": "elf", "usr/lib/systemd/systemd": "elf",
		},
		"rocky": {
			"etc/fstab": read(t, "rocky.fstab"), "etc/machine-id": "x\n", "etc/NetworkManager": "dir",
			"usr/lib/systemd/systemd-udevd": "elf", "usr/lib/systemd/systemd": "elf",
			"etc/resolv.conf": "-> /run/NetworkManager/resolv.conf",
		},
		"empty": {},
	}
}

func TestNodeFilesOfOrdinaryInstallations(t *testing.T) {
	for name, lower := range masters(t) {
		for _, node := range []cluster.NodeName{"n1", "bare"} {
			path := filepath.Join("testdata", fmt.Sprintf("%s-%s.golden", name, node))
			got := listing(t, render(t, "plain", lower, node))
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("%s differs; run the test with -update to accept it\n%s", path, d)
			}
		}
	}
}

func TestEveryBuiltinCanBeSwitchedOff(t *testing.T) {
	for name, lower := range masters(t) {
		if files := render(t, "off", lower, "n1").Files(); len(files) != 0 {
			t.Errorf("%s: got %v", name, files)
		}
	}
}

func TestTemplatesComeBeforeBuiltins(t *testing.T) {
	s := render(t, "own", masters(t)["rocky"], "n2")
	for path, want := range map[string]string{
		"etc/hostname":              "n2.lab.example\n",
		"etc/hosts":                 "10.77.0.11 n1\n10.77.0.12 n2\n10.77.0.13 n3\n10.77.0.99 bare\n",
		"etc/secret":                strings.Repeat("n2 ", 2000),
		"etc/NetworkManager/conf.d": "a file where a built-in wants a directory",
	} {
		got, err := s.Content(path)
		if err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v", path, got, err)
		}
	}
	for _, f := range s.Files() {
		if strings.HasPrefix(f.Path, "etc/NetworkManager/conf.d/") {
			t.Errorf("%s lies below a file", f.Path)
		}
		if f.Path == "etc/secret" && (f.Mode != 0o400 || f.UID != 7 || f.GID != 8 || f.Size != 6000) {
			t.Errorf("got %+v", f)
		}
	}
	if _, err := s.Content("etc/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: got %v", err)
	}
}

func TestContentThatAllNodesShareIsKeptOnce(t *testing.T) {
	c := parse(t)
	im, _ := c.Image("own")
	b, err := Prepare(NewMachines(c), im, masters(t)["debian"], image.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var first [][]byte
	for _, n := range c.Nodes {
		s, err := b.Node(n)
		if err != nil {
			t.Fatal(err)
		}
		hosts, _ := s.Content("etc/hosts")
		first = append(first, hosts)
		if &hosts[0] != &first[0][0] {
			t.Errorf("node %s has its own copy of /etc/hosts", n.Name)
		}
	}
}

func TestTwoServersMakeTheSameFiles(t *testing.T) {
	lower := masters(t)["debian"]
	if d := cmp.Diff(render(t, "plain", lower, "n3").Files(), render(t, "plain", lower, "n3").Files()); d != "" {
		t.Error(d)
	}
}

func TestNodesHaveDifferentMachineIDs(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range []cluster.NodeName{"n1", "n2", "n3", "bare"} {
		id, err := render(t, "plain", version{"etc/machine-id": ""}, n).Content("etc/machine-id")
		if err != nil || len(id) != 33 || seen[string(id)] {
			t.Errorf("%s: got %q, %v", n, id, err)
		}
		seen[string(id)] = true
	}
}

func TestAVersionThatCannotBeReadIsAnError(t *testing.T) {
	c := parse(t)
	im, _ := c.Image("plain")
	for _, path := range []string{"etc/fstab", "etc/hosts", "etc/network/interfaces", "etc/NetworkManager"} {
		_, err := Prepare(NewMachines(c), im, version{path: "broken"}, image.Time{})
		if err == nil || !strings.Contains(err.Error(), "input/output error") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

func TestADanglingLinkCountsAsNoFile(t *testing.T) {
	s := render(t, "plain", version{"etc/fstab": "-> etc/none", "etc/network/interfaces": "-> etc/none"}, "n1")
	for _, f := range s.Files() {
		if f.Path == "etc/fstab" || f.Path == "etc/network/interfaces" {
			t.Errorf("got %s", f.Path)
		}
	}
}

func TestWithoutDisks(t *testing.T) {
	for line, kept := range map[string]bool{
		"UUID=0a3407de / ext4 errors=remount-ro 0 1":     false,
		`UUID="0a3407de" /srv ext4 defaults`:             false,
		"LABEL=EFI /boot/efi vfat umask=0077":            false,
		"PARTUUID=1-2 /boot ext2":                        false,
		"/dev/mapper/vg-home /home ext4 defaults 0 2":    false,
		"/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto": false,
		"/swapfile none swap sw 0 0":                     false,
		"tank/home /home zfs defaults":                   false,
		"nfs.example:/root / nfs ro":                     false,
		"tmpfs /tmp tmpfs nosuid,nodev,size=2G 0 0":      true,
		"proc /proc proc defaults,hidepid=2 0 0":         true,
		"nfs.example:/home /home nfs vers=4.2,hard 0 0":  true,
		"/srv/nfs /export none bind 0 0":                 true,
		"/dev/shm /mnt none rbind":                       true,
		"//cifs/share /mnt cifs credentials=/root/c":     true,
		"/srv/tools.sqsh /opt/tools squashfs loop,ro":    true,
		"overlay /x overlay lowerdir=/a,upperdir=/b":     true,
	} {
		text, changed := withoutDisks([]byte(line+"\n"), fstabReason)
		if changed == kept || strings.HasPrefix(string(text), "# ") == kept {
			t.Errorf("%s: got %s", line, text)
		}
	}
}

func TestSplitInterfaces(t *testing.T) {
	tests := []struct{ name, own, loopback string }{
		{"nothing", "", "auto lo\niface lo inet loopback\n"},
		{"only the card", "auto eth0\niface eth0 inet dhcp\n", "auto lo\niface lo inet loopback\n"},
		{"loopback with addresses",
			"auto lo\niface lo inet loopback\n  up ip addr add 10.1.1.1/32 dev lo\niface eth0 inet dhcp\n  up true\n",
			"auto lo\niface lo inet loopback\n  up ip addr add 10.1.1.1/32 dev lo\n"},
		{"several on one line", "auto lo eth0\niface lo inet loopback\n", "auto lo\niface lo inet loopback\n"},
		{"continued lines", "auto \\\n  lo\niface lo inet \\\n loopback\niface eth0 inet dhcp \\\n",
			"auto \\\n  lo\niface lo inet \\\n loopback\n"},
		{"IPv6 only", "iface lo inet6 loopback\n", "auto lo\niface lo inet loopback\niface lo inet6 loopback\n"},
		{"an option by the name of an interface",
			"iface lo inet loopback\n\tpre-up modprobe x\nmapping eth0\n\tscript x\n",
			"auto lo\niface lo inet loopback\n\tpre-up modprobe x\n"},
	}
	for _, tt := range tests {
		loopback, rest := splitInterfaces(tt.own)
		if loopback != tt.loopback {
			t.Errorf("%s: got %q, want %q", tt.name, loopback, tt.loopback)
		}
		for line := range strings.Lines(rest) {
			if !strings.HasPrefix(line, "#") {
				t.Errorf("%s: %q is not a comment", tt.name, line)
			}
			if strings.HasSuffix(line, "\\\n") {
				t.Errorf("%s: %q continues", tt.name, line)
			}
		}
	}
}

func FuzzMasterFiles(f *testing.F) {
	f.Add([]byte(read(f, "debian.interfaces")))
	f.Add([]byte(read(f, "debian.fstab")))
	f.Add([]byte("auto lo \\\n\\\niface"))
	f.Add([]byte("\\"))
	f.Fuzz(func(t *testing.T, own []byte) {
		text := string(own)
		lower := version{
			"etc/fstab": text, "etc/crypttab": text, "etc/hosts": text, "etc/network/interfaces": text,
		}
		_, rest := splitInterfaces(text)
		for line := range strings.Lines(rest) {
			if !strings.HasPrefix(line, "#") {
				t.Fatalf("%q is not a comment", line)
			}
		}
		if strings.HasPrefix(text, "-> ") || text == "dir" || strings.HasPrefix(text, "broken") {
			return
		}
		listing(t, render(t, "plain", lower, "n1"))
	})
}

func BenchmarkNode(b *testing.B) {
	c, err := cluster.Load("../../examples/marenostrum.xml")
	if err != nil {
		b.Fatal(err)
	}
	im, _ := c.Image("compute")
	base, err := Prepare(NewMachines(c), im, masters(b)["debian"], image.Time{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := base.Node(c.Nodes[i%len(c.Nodes)]); err != nil {
			b.Fatal(err)
		}
	}
}
