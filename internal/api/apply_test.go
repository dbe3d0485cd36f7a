package api

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/control"
	"dim/internal/coord"
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
