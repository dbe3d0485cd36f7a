package summary

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
)

var update = flag.Bool("update", false, "write the golden files")

func load(t *testing.T, name string) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Load(filepath.Join("../../../examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSummaryOfSmallExample(t *testing.T) {
	c := load(t, "small.xml")
	got, err := json.MarshalIndent(Of(c, c.Nodes), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	const golden = "testdata/small.json.golden"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not up to date; run the test with -update\n%s", golden, d)
	}
}

func TestSummaryOfAWholeClusterFoldsNodes(t *testing.T) {
	c := load(t, "marenostrum.xml")
	s := Of(c, c.Nodes)
	if s.Groups[0].Nodes != "s[01-02]c[1-6]b[01-14]" || s.Images[1].Count != 168 || s.Servers[1].Nodes != 64 ||
		len(s.Nodes) != 2560 {
		t.Errorf("got group %+v, image %+v, server %+v, %d nodes", s.Groups[0], s.Images[1], s.Servers[1], len(s.Nodes))
	}
	if n := s.Nodes[0]; n.Image != "cell" || n.Groups[0] != "cell" || n.Servers[1] != "is02" {
		t.Errorf("got node %+v", n)
	}
}

func TestSourcesAreEnoughToParseAgain(t *testing.T) {
	for _, name := range []string{"small.xml", "marenostrum.xml"} {
		c := load(t, name)
		files := map[string][]byte{}
		for _, s := range c.Sources()[1:] {
			files[s.Name] = s.Data
		}
		again, err := cluster.Parse(cluster.Source{
			Name: "stored.xml", XML: c.Sources()[0].Data,
			Open: func(name string) ([]byte, error) {
				if data, ok := files[name]; ok {
					return data, nil
				}
				return nil, os.ErrNotExist
			},
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := cmp.Diff(Of(c, c.Nodes).Nodes, Of(again, again.Nodes).Nodes); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
