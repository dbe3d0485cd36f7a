package cluster

import (
	"encoding/json"
	"testing"
)

func TestSummaryOfSmallExample(t *testing.T) {
	text, err := json.MarshalIndent(load(t, "small.xml").Summary(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/small.json.golden", append(text, '\n'))
}

func TestSummaryOfAWholeClusterFoldsNodes(t *testing.T) {
	s := load(t, "marenostrum.xml").Summary()
	if s.Groups[0].Nodes != "s[01-02]c[1-6]b[01-14]" || s.Images[1].Count != 168 || s.Servers[1].Nodes != 64 || len(s.Nodes) != 2560 {
		t.Errorf("got group %+v, image %+v, server %+v, %d nodes", s.Groups[0], s.Images[1], s.Servers[1], len(s.Nodes))
	}
	if n := s.Nodes[0]; n.Image != "cell" || n.Groups[0] != "cell" || n.Servers[1] != "is02" {
		t.Errorf("got node %+v", n)
	}
}
