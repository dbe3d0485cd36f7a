package oci

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/testkit"
)

func TestRequestsWithoutTLSAreRefusedUnlessLocalOrDeclared(t *testing.T) {
	answer := roundTripper(func(*http.Request) (*http.Response, error) { return &http.Response{StatusCode: 200}, nil })
	g := &guard{next: answer, declared: "10.0.0.9:5000"}
	for url, want := range map[string]bool{
		"https://10.0.0.1/v2/": true, "http://10.0.0.1/v2/": false, "http://registry.example/v2/": false,
		"http://127.0.0.1:5000/": true, "http://[::1]:5000/": true,
		"http://localhost:1/": true, "http://localhost.example/": false, "http://10.0.0.9:5000/": true,
		"http://10.0.0.9/": false, "http://127.0.0.1.example:80/": false,
	} {
		_, err := g.RoundTrip(httptest.NewRequest(http.MethodGet, url, nil))
		if (err == nil) != want {
			t.Errorf("%s: %v", url, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestALayoutWithAHugeIndexIsRefused(t *testing.T) {
	dir := t.TempDir()
	testkit.Must(t,
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion": "1.0.0"}`), 0o644),
		os.WriteFile(filepath.Join(dir, "index.json"), nil, 0o644),
		os.Truncate(filepath.Join(dir, "index.json"), 1<<40))
	if _, err := OpenLayout(dir, "amd64"); err == nil || !strings.Contains(err.Error(), "is too large") {
		t.Errorf("got %v", err)
	}
}
