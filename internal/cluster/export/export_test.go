package export

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

const description = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="10.77.0.0/24"/>
  <network name="ib" subnet="10.78.0.0/16"/>
  <server name="head" roles="head image"><interface network="boot" address="10.77.0.1"/></server>
  <taxonomy><level name="rack" from="1" to="2"/><level name="node" from="1" to="2"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/compute"/>
  <image name="gpu-node" arch="amd64" master="dir:/srv/gpu"/>
  <nodes name="r{rack}n{node:02}" each="node rack" image="compute" servers="head">
    <interface name="eth0" network="boot" address="10.77.0.{rack*10+node}" mac="52:54:00:4d:{rack:02x}:{node:02x}"/>
    <interface name="ib0" network="ib" address="10.78.{rack}.{node}"/>
  </nodes>
  <group name="fast" nodes="r2n[01-02]" image="gpu-node"/>
</cluster>
`

func parse(t *testing.T, text string) *cluster.Cluster {
	t.Helper()
	return testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)}))(t)
}

// exported writes the files of a format into a new directory.
func exported(t *testing.T, c *cluster.Cluster, format string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, f := range Formats() {
		if f.Name != format {
			continue
		}
		for _, file := range testkit.Value(f.Files(c, 7))(t) {
			testkit.Must(t, os.WriteFile(filepath.Join(dir, file.Name), file.Data, 0o644))
		}
		return dir
	}
	t.Fatalf("there is no format %q", format)
	return dir
}

// program runs a program that reads an export, in dir, and returns what it prints.
func program(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	testkit.NeedProgram(t, name)
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// The program that a file is for reads it, and knows what stands in the description.
func TestProgramsReadWhatIsExported(t *testing.T) {
	c := parse(t, description)
	for _, tt := range []struct {
		format  string
		program []string
		want    []string // parts of the output
	}{
		{"ansible", []string{"ansible-inventory", "-i", "hosts.yaml", "--list"},
			[]string{`"ansible_host": "10.77.0.22"`, `"fast": {`, `"gpu_node": {`, `"rack1": {`}},
		{"ansible", []string{"ansible", "-i", "hosts.yaml", "--list-hosts", "rack2:&fast"}, []string{"r2n01", "r2n02"}},
		{"bind", []string{"named-checkzone", "-D", "small.example", "db.small.example"},
			[]string{"r1n02.small.example.", "10.77.0.12", "r1n02-ib0.small.example.", "10.78.1.2", "OK"}},
		{"bind", []string{"named-checkzone", "-D", "0.77.10.in-addr.arpa", "db.0.77.10.in-addr.arpa"},
			[]string{"12.0.77.10.in-addr.arpa.", "r1n02.small.example.", "OK"}},
		{"bind", []string{"named-checkconf", "-z", "named.conf.dim"},
			[]string{"zone 2.78.10.in-addr.arpa/IN: loaded serial 7"}},
		{"genders", []string{"nodeattr", "-f", "genders", "-c", "fast"}, []string{"r2n01,r2n02"}},
		{"genders", []string{"nodeattr", "-f", "genders", "-c", "rack=1"}, []string{"r1n01,r1n02"}},
		{"genders", []string{"nodeattr", "-f", "genders", "-k"}, nil},
		{"ssh-config", []string{"ssh", "-F", "dim.conf", "-G", "r2n01.small.example"}, []string{"hostname 10.77.0.21"}},
	} {
		t.Run(tt.format+" "+tt.program[0], func(t *testing.T) {
			out := program(t, exported(t, c, tt.format), tt.program[0], tt.program[1:]...)
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in:\n%s", want, out)
				}
			}
		})
	}
}

// slurmd reads the configuration and starts only as a node that is in it.
func TestSlurmReadsTheNodes(t *testing.T) {
	dir := exported(t, parse(t, description), "slurm")
	conf := "ClusterName=x\nSlurmctldHost=head\nNodeName=DEFAULT CPUs=8\ninclude nodes.conf\n"
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "slurm.conf"), []byte(conf), 0o644))
	slurmd := []string{"-f", filepath.Join(dir, "slurm.conf"), "-G", "-N"}
	program(t, dir, "slurmd", append(slurmd, "r2n02")...)
	if out, err := exec.Command("slurmd", append(slurmd, "r2n03")...).CombinedOutput(); err == nil {
		t.Errorf("a node that is not in the file is known to slurmd:\n%s", out)
	}
	nodes := string(testkit.Value(os.ReadFile(filepath.Join(dir, "nodes.conf")))(t))
	for _, want := range []string{"NodeName=r1n01 NodeAddr=10.77.0.11 ", "PartitionName=fast Nodes=r2n[01-02] "} {
		if !strings.Contains(nodes, want) {
			t.Errorf("no %q in\n%s", want, nodes)
		}
	}
}

func TestClusterShellReadsTheGroups(t *testing.T) {
	dir := exported(t, parse(t, description), "clustershell")
	conf := fmt.Sprintf("[Main]\ndefault: dim\nautodir: %s\n", dir)
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "groups.conf"), []byte(conf), 0o644))
	for set, want := range map[string]string{
		"@dim:fast": "r2n[01-02]", "@rack1": "r1n[01-02]", "@dim:all": "r[1-2]n[01-02]", "@gpu-node": "r2n[01-02]",
	} {
		out := program(t, dir, "nodeset", "--groupsconf="+filepath.Join(dir, "groups.conf"), "-f", set)
		if strings.TrimSpace(out) != want {
			t.Errorf("%s is %q, want %q", set, out, want)
		}
	}
}

func TestTargetsOfPrometheus(t *testing.T) {
	dir := exported(t, parse(t, description), "prometheus")
	conf := "scrape_configs: [{job_name: nodes, file_sd_configs: [{files: [dim.json]}]}]\n"
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(conf), 0o644))
	program(t, dir, "promtool", "check", "config", "prometheus.yml")
	var list []struct {
		Targets []string
		Labels  map[string]string
	}
	b := testkit.Value(os.ReadFile(filepath.Join(dir, "dim.json")))(t)
	testkit.Must(t, json.Unmarshal(b, &list))
	last := list[len(list)-1]
	want := "map[cluster:small dim:node image:gpu-node node:r2n02 rack:2 server:head]"
	if len(list) != 5 || fmt.Sprint(last.Targets) != "[10.77.0.22:9100]" || fmt.Sprint(last.Labels) != want {
		t.Errorf("%d targets, the last one %v", len(list), last)
	}
}

func TestNamesAndHardwareAddresses(t *testing.T) {
	c := parse(t, description)
	for format, want := range map[string]string{
		"hosts": "127.0.0.1 localhost\n10.77.0.1 head.small.example head\n10.77.0.11 r1n01.small.example r1n01\n" +
			"10.78.1.1 r1n01-ib0.small.example r1n01-ib0\n",
		"ethers": "52:54:00:4d:01:01 r1n01\n52:54:00:4d:01:02 r1n02\n",
	} {
		dir := exported(t, c, format)
		got := string(testkit.Value(os.ReadFile(filepath.Join(dir, format)))(t))
		if _, rest, _ := strings.Cut(got, "\n"); !strings.HasPrefix(rest, want) {
			t.Errorf("%s is\n%s\nand does not begin with\n%s", format, got, want)
		}
	}
}

func TestZonesNeedADomain(t *testing.T) {
	c := parse(t, strings.Replace(description, ` domain="small.example"`, "", 1))
	for _, f := range Formats() {
		if _, err := f.Files(c, 1); (err != nil) != (f.Name == "bind") {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

func TestAGroupWinsOverAnImageOfItsName(t *testing.T) {
	c := parse(t, strings.Replace(description, `name="fast"`, `name="compute"`, 1))
	s := source{Cluster: c}
	for _, set := range s.sets() {
		if set.name == "compute" && fold(set.nodes) != "r2n[01-02]" {
			t.Errorf("compute is %v", set.nodes)
		}
	}
}
