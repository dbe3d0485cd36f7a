package coord

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/image"
	"dim/internal/testkit"
)

func TestWhatANodeFollows(t *testing.T) {
	versions := func(numbers ...int) (list []image.Version) {
		for _, n := range numbers {
			list = append(list, image.Version{Image: "compute", Number: n})
		}
		return list
	}
	declared := &Image{Last: 3, Current: 2, Versions: versions(1, 2, 3)}
	undeclared := &Image{Last: 3, Versions: versions(1, 3)}
	missing := &Image{Last: 3, Current: 2, Versions: versions(1)}
	for name, c := range map[string]struct {
		image             *Image
		desired, next     string
		wantNow, wantNext string
	}{
		"the current version":                         {declared, "", "", "compute@2", ""},
		"the newest version while none is current":    {undeclared, "", "", "compute@3", ""},
		"a version of its own":                        {declared, "compute@1", "", "compute@1", ""},
		"a tag":                                       {declared, "compute@stable", "", "compute@stable", ""},
		"another version from its next boot on":       {declared, "", "compute@3", "compute@2", "compute@3"},
		"a version of its own, and a tag at its boot": {declared, "compute@1", "compute@x", "compute@1", "compute@x"},
		"not a version of the image that it had":      {declared, "gpu@7", "gpu@8", "compute@2", ""},
		"not a version of an image with a like name":  {declared, "compute2@1", "compute.x@8", "compute@2", ""},
		"nothing, when its image has no version":      {nil, "", "", "compute", ""},
		"nothing, when all versions were removed":     {&Image{Last: 3}, "", "", "compute", ""},
		"the current version even if it is missing":   {missing, "", "", "compute@2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := State{Images: map[string]*Image{"compute": c.image}, Desired: Refs{}, Next: Refs{}}
			if c.desired != "" {
				s.Desired["n01"] = ref(t, c.desired)
			}
			if c.next != "" {
				s.Next["n01"] = ref(t, c.next)
			}
			if now, next := s.Follows("n01", "compute"); now.String() != c.wantNow || next.String() != c.wantNext {
				t.Errorf("it follows %q, and %q from its next boot on; want %q and %q",
					now, next, c.wantNow, c.wantNext)
			}
		})
	}
}

// The texts are what earlier programs wrote.
func TestReferencesKeepTheirForm(t *testing.T) {
	const kept = `{"n01":"compute@12","n02":"compute@stable"}`
	var refs Refs
	testkit.Must(t, json.Unmarshal([]byte(kept), &refs))
	if b, err := json.Marshal(refs); err != nil || string(b) != kept {
		t.Errorf("%s was written as %s: %v", kept, b, err)
	}
	path := filepath.Join(t.TempDir(), "state.json")
	file := `{"format":1,"store":"x","revision":7,"images":{},"desired":` + kept + `,"next":{}}`
	testkit.Must(t, os.WriteFile(path, []byte(file), 0o600))
	s := testkit.Value(LoadState(path))(t)
	if now, _ := s.Follows("n02", "compute"); now != (image.Ref{Image: "compute", Tag: "stable"}) {
		t.Errorf("n02 follows %s", now)
	}
	testkit.Must(t, SaveState(path, s))
	want := `"desired":{"n01":"compute@12","n02":"compute@stable"},"next":{},`
	if b := testkit.Value(os.ReadFile(path))(t); !strings.Contains(string(b), want) {
		t.Errorf("it was saved as %s", b)
	}
}

func TestInvalidReferencesAreLeftOut(t *testing.T) {
	desired := `{"n01":"compute@1","n02":"compute","n03":"compute@@","n04":"compute@-1","n05":""}`
	var d decoder
	testkit.Must(t, d.key("desired", entry{value: []byte(desired)}, true))
	if len(d.Desired) != 1 || d.Desired["n01"].Number != 1 {
		t.Errorf("desired: %v", d.Desired)
	}
	if d.key("next", entry{value: []byte(`["n01"]`)}, true) == nil {
		t.Error("a list was taken for references")
	}
}
