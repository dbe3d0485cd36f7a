package api

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/testkit"
)

func TestAnApplyWhoseEndIsNotKnownSaysSo(t *testing.T) {
	api, now := newAPI(t, roots{})
	c := testkit.Value(coord.Open(t.Context(), coord.Options{Dir: filepath.Join(t.TempDir(), "coord")}))(t)
	testkit.Must(t, c.Close())
	request := &control.ApplyRequest{Description: control.Description{Main: "cluster.xml"}}
	p := application{api: api, request: request, now: now, next: now.Cluster, shared: c}
	_, err := p.put(t.Context(), &control.ApplyResult{})
	e, ok := errors.AsType[*control.Error](err)
	if !ok || e.Code != control.Unavailable || !strings.Contains(e.Hint, "dim cluster log shows") ||
		!strings.HasPrefix(e.Message, "apply cluster.xml: it may be applied or not: ") {
		t.Errorf("the shared state has ended: %v", err)
	}
}

// TestAllExamples plans each example as the first description of its cluster, and again when it is applied.
func TestAllExamples(t *testing.T) {
	paths := testkit.Value(filepath.Glob("../../examples/*.xml"))(t)
	if len(paths) < 5 {
		t.Errorf("%d examples", len(paths))
	}
	api, _ := newAPI(t, roots{})
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c := testkit.Value(cluster.Load(path))(t)
			if len(c.Warnings()) > 0 {
				t.Errorf("warnings: %v", c.Warnings())
			}
			bare := fmt.Sprintf(`<cluster name=%q><network name="bare" subnet="192.0.2.0/24"/>
<server name="head" roles="head image"><interface network="bare" address="192.0.2.1"/></server>
</cluster>`, c.Name)
			before := testkit.Value(cluster.Parse(cluster.Source{Name: "bare.xml", XML: []byte(bare)}))(t)
			added := 0
			for _, change := range planned(t, api, before, c) {
				if change.Subject == "node" && change.Kind == control.Added {
					added += change.Count
				}
			}
			if added != len(c.Nodes) || added == 0 {
				t.Errorf("%d nodes are added, of %d", added, len(c.Nodes))
			}
			if list := planned(t, api, c, c); len(list) > 0 {
				t.Errorf("changes when it is applied: %v", list)
			}
		})
	}
}

// planned returns what applying a description after another one changes. It must not be refused.
func planned(t *testing.T, api *API, before, next *cluster.Cluster) []control.DescriptionChange {
	t.Helper()
	d := control.Description{Main: "cluster.xml", Files: map[string][]byte{}}
	for i, f := range next.Sources() {
		if i == 0 {
			f.Name = d.Main
		}
		d.Files[f.Name] = f.Data
	}
	p := application{
		api: api, request: &control.ApplyRequest{Description: d, DryRun: true}, now: &follow.Declared{Cluster: before},
	}
	testkit.Must(t, p.parse())
	out, refusal, err := p.plan(t.Context())
	testkit.Must(t, err)
	if refusal != nil {
		t.Errorf("refused: %v", refusal)
	}
	return out.Changes
}
