package layers

import (
	"testing"
	"time"
)

func TestOnlyOlderFilesOfTheLayerAreOlder(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	ever := time.Now().Add(time.Hour)
	if o.HasOlderFile("etc/a", ever) {
		t.Error("a file of the version is the layer's")
	}
	o.WriteFile("etc/a", "mine")
	if !o.HasOlderFile("etc/a", ever) {
		t.Error("a file of the layer is not older than in an hour")
	}
	if o.HasOlderFile("etc/a", time.Now().Add(-time.Hour)) {
		t.Error("a file that was written now is older than an hour ago")
	}
	if o.HasOlderFile("etc", ever) || o.HasOlderFile("etc/none", ever) {
		t.Error("a directory, or nothing, is an older file")
	}
}
