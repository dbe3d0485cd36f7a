package layers

import (
	"testing"
	"time"
)

func TestOnlyOlderFilesOfTheLayerAreOlder(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	ever := time.Now().Add(time.Hour)
	if o.OlderFile("etc/a", ever) {
		t.Error("a file of the version is the layer's")
	}
	o.WriteFile("etc/a", "mine")
	if !o.OlderFile("etc/a", ever) {
		t.Error("a file of the layer is not older than in an hour")
	}
	if o.OlderFile("etc/a", time.Now().Add(-time.Hour)) {
		t.Error("a file that was written now is older than an hour ago")
	}
	if o.OlderFile("etc", ever) || o.OlderFile("etc/none", ever) {
		t.Error("a directory, or nothing, is an older file")
	}
}
