package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/lab"
	"dim/internal/testkit"
)

// importedSmall imports tables of xCAT that describe the machines of examples/small.xml, and returns the description.
func importedSmall(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	tree(t, dir, map[string]string{
		"xcat/nodelist.csv": "#node,groups,status,comments,disable\n" +
			"\"n01\",\"compute,all\",,,\n\"n02\",\"compute,all\",,,\n\"n03\",\"compute,all\",,,\n",
		"xcat/hosts.csv": "#node,ip,hostnames,otherinterfaces,comments,disable\n" +
			"\"compute\",\"|\\D+(\\d+)|10.77.0.(10+$1)|\",,,,\n",
		"xcat/mac.csv": "#node,interface,mac,comments,disable\n" +
			"\"n01\",,\"52:54:00:4D:00:01!n01\",,\n\"n02\",,\"52-54-00-4d-00-02\",,\n\"n03\",,\"5254004d0003\",,\n",
		"xcat/nodetype.csv": "#node,os,arch,profile,provmethod,supportedarchs,nodetype,comments,disable\n" +
			"\"compute\",,\"x86_64\",,\"compute\",,\"osi\",,\n",
		"xcat/noderes.csv": "#node,servicenode,netboot,installnic,primarynic,comments,disable\n" +
			"\"compute\",,\"xnba\",\"eth0\",\"eth0\",,\n",
		"xcat/linuximage.csv": "#imagename,template,addkcmdline,exlist,rootimgdir,comments,disable\n" +
			"\"compute\",,\"quiet console=ttyS0\",,,,\n",
		"xcat/networks.csv": "#netname,net,mask,mgtifname,gateway,nameservers,comments,disable\n" +
			"\"boot\",\"10.77.0.0\",\"255.255.255.0\",\"eth0\",\"<xcatmaster>\",,,\n",
		"xcat/site.csv": "#key,value,comments,disable\n\"master\",\"10.77.0.1\",,\n\"domain\",\"small.example\",,\n",
	})
	xml := filepath.Join(dir, "cluster.xml")
	bin := testkit.Value(filepath.Abs("../bin/dim"))(t)
	args := []string{"cluster", "import", "xcat", filepath.Join(dir, "xcat"), "--file", xml}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return xml
}

func TestAnImportedClusterIsServed(t *testing.T) {
	needLab(t)
	c := startClusterAs(t, t.TempDir(), smallMaster(t), importedSmall(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	g := startGuest(t, c, "n02", nil)
	if got := g.read("/mnt/root/etc/hostname"); got != "n02\n" {
		t.Errorf("hostname: %q", got)
	}
	if got := g.read("/mnt/root/etc/motd"); got != "one\n" {
		t.Errorf("motd: %q", got)
	}
}

// A machine boots a Debian that was not made for DIM, by a description that was imported from xCAT.
func TestAnImportedClusterBoots(t *testing.T) {
	needLab(t)
	if os.Getenv("DIM_LONG") == "" {
		t.Skip("boots a whole machine once more: run `make long`")
	}
	master, work := debian(t), t.TempDir()
	c := startClusterAs(t, work, master, importedSmall(t))
	testkit.Must(t, os.WriteFile(filepath.Join(master, "root/.ssh/authorized_keys"), []byte(c.Key+"\n"), 0o600))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	m := &machine{name: "n01", mac: "52:54:00:4d:00:01", firmware: lab.BIOS}
	m.start(t, c, work)
	m.running(t, c)
	if got := strings.TrimSpace(m.ssh(t, c, "hostname -f; cat /proc/cmdline")); !strings.HasPrefix(got, "n01") {
		t.Errorf("hostname and command line: %s", got)
	} else {
		t.Log(got)
	}
	t.Log("\n" + dim(t, c, "node", "ls"))
}
