package client

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"dim/internal/testkit"
)

// A value of a few bytes takes hundreds of bytes of memory when it is decoded.
func TestAnAnswerOfAnotherServerTakesLittleMemory(t *testing.T) {
	for what, unit := range map[string]string{
		"objects": `{},`, "nulls": `null,`, "lists": `[],`, "members": `{"a":1,"b":2},`,
	} {
		body := "[" + strings.Repeat(unit, maxLine/len(unit)-2)
		body = body[:len(body)-1] + "]"
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, body)
		}))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		list, err := At(server.Client(), server.URL, "is1").Nodes(t.Context(), "")
		runtime.ReadMemStats(&after)
		server.Close()
		if err == nil || !strings.Contains(err.Error(), "more than 200000 elements of lists") {
			t.Errorf("%s: %d nodes, %v", what, len(list), err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 400<<20 {
			t.Errorf("%s: it took %d MiB", what, took>>20)
		}
	}
}

func TestLinesAreCountedOneByOne(t *testing.T) {
	text := strings.Repeat(`{"list":["a, [b","\"c,\\",{}],"more":{}}`+"\n", 3)
	l := &lines{ReadCloser: io.NopCloser(strings.NewReader(text))}
	got := testkit.Value(io.ReadAll(l))(t)
	if string(got) != text || l.line.length != 0 || l.line.elements != 0 {
		t.Errorf("read %q, and then %+v", got, l.line)
	}
	for name, text := range map[string]string{
		"deep": strings.Repeat("[", maxDepth+1), "long": `"` + strings.Repeat("x", maxLine),
		"members": `{` + strings.Repeat(`"a":1,`, maxMembers+1),
	} {
		if _, err := io.ReadAll(&lines{ReadCloser: io.NopCloser(strings.NewReader(text))}); err == nil {
			t.Errorf("%s: it is not refused", name)
		}
	}
}

// FuzzLine compares the count with what a decoder finds.
func FuzzLine(f *testing.F) {
	for _, text := range []string{`[1,[2,3],{"a":[]}]`, `["\"[,",{"x":"\\"}]`, `{"a":{"b":[null,true]}}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		text = bytes.ReplaceAll(text, []byte("\n"), nil)
		var v any
		if json.Unmarshal(text, &v) != nil {
			return
		}
		var l line
		for _, c := range text {
			if l.add(c) != nil {
				return
			}
		}
		if has := elements(v); l.elements < has || len(l.open) > 0 || l.text {
			t.Errorf("%q has %d elements, and is counted as %+v", text, has, l)
		}
	})
}

func elements(v any) (n int) {
	switch v := v.(type) {
	case []any:
		n = len(v)
		for _, e := range v {
			n += elements(e)
		}
	case map[string]any:
		for _, e := range v {
			n += elements(e)
		}
	}
	return n
}
