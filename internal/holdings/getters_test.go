package holdings

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/testkit"
)

// wide describes a cluster of 20 image servers with a node each; those of the last two have another image.
func wide() string {
	b := &strings.Builder{}
	b.WriteString(`<cluster name="wide" domain="wide.example">
  <network name="boot" subnet="10.0.0.0/16" insecure="yes"/>
  <server name="head" roles="head"><interface network="boot" address="10.0.0.1"/></server>
`)
	for i := range 20 {
		fmt.Fprintf(b, `  <server name="is%02d" roles="image">
    <interface network="boot" address="10.0.1.%[1]d"/></server>
`, i+1)
	}
	b.WriteString(`  <image name="compute" arch="amd64" master="dir:/a"/>
  <image name="login" arch="amd64" master="dir:/b"/>
`)
	for i := range 20 {
		image := "compute"
		if i >= 18 {
			image = "login"
		}
		fmt.Fprintf(b, `  <node name="n%02d" image="%s" servers="is%02[1]d">
    <interface name="eth0" network="boot" address="10.0.2.%[1]d" mac="52:54:00:4d:00:%02[1]x"/></node>
`, i+1, image)
	}
	return b.String() + "</cluster>"
}

func TestWhoGetsAVersionTogether(t *testing.T) {
	v := image.Version{Image: "compute", Number: 1, Digest: image.Sum([]byte("v"))}
	now := &follow.Declared{
		Cluster: testkit.Value(cluster.Parse(cluster.Source{Name: "c.xml", XML: []byte(wide())}))(t),
		State: coord.State{Images: map[string]*coord.Image{
			"compute": {Last: 1, Versions: []image.Version{v}}, "login": {Last: 0},
		}},
	}
	reports := testkit.Value(fleet.Open(t.TempDir()))(t)
	for i := range 20 {
		if i != 2 { // is03 is silent
			reports.Put(cluster.ServerName(fmt.Sprintf("is%02d", i+1)), &fleet.Report{})
		}
	}
	has := &fleet.Report{Versions: []fleet.Version{{Version: v.Ref(), Digest: v.Digest}}}
	reports.Put("is04", has)
	get := func(digest image.Digest, asker cluster.ServerName) string {
		var names []string
		for _, name := range Getters(now, reports, digest, asker) {
			names = append(names, strings.TrimPrefix(string(name), "is"))
		}
		return strings.Join(names, " ")
	}
	const group = "01 02 05 06 07 08 09 10 11 12 13 14 15 16 17 18"
	for _, c := range []struct {
		name   string
		digest image.Digest
		asker  cluster.ServerName
		want   string
	}{
		{"a server that needs it", v.Digest, "is07", group},
		{"a server that is silent itself", v.Digest, "is03", "01 02 03 05 06 07 08 09 10 11 12 13 14 15 16 17"},
		{"a server without nodes of the image, in a second group", v.Digest, "is20", "20"},
		{"a version that is not declared", image.Sum(nil), "is07", ""},
	} {
		if diff := cmp.Diff(c.want, get(c.digest, c.asker)); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}
