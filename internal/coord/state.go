package coord

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"dim/internal/durable"
	"dim/internal/image"
)

// State is the whole declared state at one revision. It is a value that nobody changes once it was delivered.
type State struct {
	Store       string            `json:"store"` // identifies the etcd cluster; revisions of two cannot be compared
	Revision    int64             `json:"revision"`
	Description *Description      `json:"description"` // nil: none applied yet
	Images      map[string]*Image `json:"images"`      // by name; those of which a number was given once
	Desired     Refs              `json:"desired"`     // what nodes follow that do not follow the current version of their image
	Next        Refs              `json:"next"`        // what nodes follow from their next boot on
	// Rollouts are what rollouts keep of themselves, by number; package rollout knows their form.
	Rollouts map[int]json.RawMessage `json:"rollouts"`
	Watches  map[string]Watch        `json:"watches"` // image → how its master is watched
}

// Refs are references by the names of nodes.
type Refs map[string]image.Ref

// UnmarshalJSON implements json.Unmarshaler. It leaves out what does not name a version, such as a reference in a form that this program
// does not know.
func (r *Refs) UnmarshalJSON(b []byte) error {
	var texts map[string]string
	if err := json.Unmarshal(b, &texts); err != nil {
		return err
	}
	*r = make(Refs, len(texts))
	for node, text := range texts {
		if ref, err := image.ParseRef(text); err == nil && (ref.Number > 0 || ref.Tag != "") {
			(*r)[node] = ref
		}
	}
	return nil
}

// Description is the applied cluster description: the XML file and the files that it names.
type Description struct {
	Files    []File       `json:"files"` // the XML file first
	Digest   image.Digest `json:"digest"`
	Applied  time.Time    `json:"applied"`
	Revision int64        `json:"-"` // of the last PutDescription
}

// File is one file of a description.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Image is what is known of one image.
type Image struct {
	Last     int             // highest number ever given, to a version or a reservation
	Current  int             // the version that nodes without a reference of their own follow; 0: not told yet, see Followed
	Versions []image.Version // by number; their Tags are filled in
	Tags     map[string]int
	Reserved map[int]Reservation // by number; nil: none
}

// Newest returns the version with the highest number.
func (i *Image) Newest() (v image.Version, ok bool) {
	if i == nil || len(i.Versions) == 0 {
		return v, false
	}
	return i.Versions[len(i.Versions)-1], true
}

// Followed returns the version that nodes without a reference of their own follow: the current one. When none is declared, as in a state
// of the time before rollouts, it is the newest.
func (i *Image) Followed() (v image.Version, ok bool) { return i.Version(i.current()) }

// current returns the number of the version that Followed returns; 0 when the image has no version.
func (i *Image) current() int {
	if i != nil && i.Current > 0 {
		return i.Current
	}
	v, _ := i.Newest()
	return v.Number
}

// Version returns the version with a number.
func (i *Image) Version(number int) (v image.Version, ok bool) {
	if i == nil {
		return v, false
	}
	n, ok := slices.BinarySearchFunc(i.Versions, number, func(v image.Version, n int) int { return v.Number - n })
	if !ok {
		return v, false
	}
	return i.Versions[n], true
}

// Follows returns the reference that a node of an image follows now, and the one that it follows from its next boot on: the zero Ref when
// there is none. A reference to another image does not count: the node had that image before. While the image has no version, now has
// neither a number nor a tag.
func (s State) Follows(node, name string) (now, next image.Ref) {
	if now = s.Desired[node]; now.Image != name {
		now = image.Ref{Image: name, Number: s.Images[name].current()}
	}
	if next = s.Next[node]; next.Image != name {
		next = image.Ref{}
	}
	return now, next
}

// Resolve finds the version that a reference names.
func (s State) Resolve(r image.Ref) (v image.Version, ok bool) {
	i := s.Images[r.Image]
	switch {
	case i == nil:
		return v, false
	case r.Number > 0:
		return i.Version(r.Number)
	case r.Tag != "":
		return i.Version(i.Tags[r.Tag])
	}
	return i.Newest()
}

// version is the form of an image.Version in etcd and on disk: with its root entry, without its tags.
type version struct {
	image.Version
	Root image.Entry `json:"root"`
}

func (v version) plain() image.Version {
	v.Version.Root = v.Root
	return v.Version
}

func stored(v image.Version) version {
	v.Tags = nil
	return version{Version: v, Root: v.Root}
}

// imageJSON is the form of an Image on disk.
type imageJSON struct {
	Last     int            `json:"last"`
	Current  int            `json:"current,omitempty"`
	Versions []version      `json:"versions"`
	Tags     map[string]int `json:"tags"`

	Reserved map[int]Reservation `json:"reserved,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (i *Image) MarshalJSON() ([]byte, error) {
	j := imageJSON{Last: i.Last, Current: i.Current, Tags: i.Tags, Reserved: i.Reserved, Versions: []version{}}
	for _, v := range i.Versions {
		j.Versions = append(j.Versions, stored(v))
	}
	return json.Marshal(j)
}

// UnmarshalJSON implements json.Unmarshaler.
func (i *Image) UnmarshalJSON(b []byte) error {
	var j imageJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*i = Image{Last: j.Last, Current: j.Current, Tags: j.Tags, Reserved: j.Reserved}
	for _, v := range j.Versions {
		i.Versions = append(i.Versions, v.plain())
	}
	i.finish()
	return nil
}

// finish brings versions in order and tells each its tags.
func (i *Image) finish() {
	slices.SortFunc(i.Versions, func(a, b image.Version) int { return a.Number - b.Number })
	if i.Tags == nil {
		i.Tags = map[string]int{}
	}
	for n := range i.Versions {
		v := &i.Versions[n]
		v.Tags = nil
		for tag, number := range i.Tags {
			if number == v.Number {
				v.Tags = append(v.Tags, tag)
			}
		}
		slices.Sort(v.Tags)
	}
}

// entry is one key's value and the revision of its last change.
type entry struct {
	value    []byte
	revision int64
}

// decode makes a State of all keys, named without their prefix. Keys that it does not know are another program's affair.
func decode(store string, revision int64, keys map[string]entry) (State, error) {
	s := State{Store: store, Revision: revision}
	s.fill()
	for key, e := range keys {
		if err := s.take(key, e); err != nil {
			return State{}, fmt.Errorf("read cluster state: key %s: %w", key, err)
		}
	}
	for _, i := range s.Images {
		i.finish()
	}
	return s, nil
}

func (s *State) take(key string, e entry) error {
	switch {
	case key == "format" && string(e.value) != format:
		return fmt.Errorf("format %s: %w", e.value, ErrNewerFormat)
	case key == "description":
		s.Description = &Description{}
		err := json.Unmarshal(e.value, s.Description)
		s.Description.Revision = e.revision
		return err
	case key == "desired":
		return json.Unmarshal(e.value, &s.Desired)
	case key == "next":
		return json.Unmarshal(e.value, &s.Next)
	case strings.HasPrefix(key, "rollouts/"):
		id, err := strconv.Atoi(strings.TrimPrefix(key, "rollouts/"))
		s.Rollouts[id] = e.value
		return err
	case strings.HasPrefix(key, "watches/"):
		var w Watch
		err := json.Unmarshal(e.value, &w)
		s.Watches[strings.TrimPrefix(key, "watches/")] = w
		return err
	case strings.HasPrefix(key, "images/"):
		return s.takeImage(strings.Split(key, "/"), e)
	}
	return nil
}

// takeImage takes images/NAME/last, images/NAME/current, images/NAME/versions/NUMBER, images/NAME/tags/TAG and
// images/NAME/reserved/NUMBER.
func (s *State) takeImage(part []string, e entry) error {
	i := s.Images[part[1]]
	if i == nil {
		i = &Image{Tags: map[string]int{}}
		s.Images[part[1]] = i
	}
	var err error
	switch {
	case len(part) == 3 && part[2] == "last":
		i.Last, err = strconv.Atoi(string(e.value))
	case len(part) == 3 && part[2] == "current":
		i.Current, err = strconv.Atoi(string(e.value))
	case len(part) == 4 && part[2] == "tags":
		i.Tags[part[3]], err = strconv.Atoi(string(e.value))
	case len(part) == 4 && part[2] == "versions":
		var v version
		err = json.Unmarshal(e.value, &v)
		i.Versions = append(i.Versions, v.plain())
	case len(part) == 4 && part[2] == "reserved":
		err = i.takeReserved(part[3], e.value)
	}
	return err
}

func (i *Image) takeReserved(name string, value []byte) error {
	number, err := strconv.Atoi(name)
	if err != nil {
		return err
	}
	var r Reservation
	if i.Reserved == nil {
		i.Reserved = map[int]Reservation{}
	}
	err = json.Unmarshal(value, &r)
	i.Reserved[number] = r
	return err
}

// stateFile is the form of a State on disk.
type stateFile struct {
	Format              int   `json:"format"`
	DescriptionRevision int64 `json:"description_revision"`
	State
}

const stateFormat = 1

// SaveState keeps s at path, so that LoadState finds it after a crash at any moment.
func SaveState(path string, s State) error {
	f := stateFile{Format: stateFormat, State: s}
	if s.Description != nil {
		f.DescriptionRevision = s.Description.Revision
	}
	b, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	return durable.WriteFile(path, append(b, '\n'), 0o600)
}

// LoadState returns what SaveState kept at path. When there is nothing yet, it is an empty State.
func LoadState(path string) (State, error) {
	f := stateFile{}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return State{}, err
	default:
		if err := json.Unmarshal(b, &f); err != nil {
			return State{}, fmt.Errorf("load cluster state %s: %v", path, err)
		}
		if f.Format > stateFormat {
			return State{}, fmt.Errorf("load cluster state %s: format %d: %w", path, f.Format, ErrNewerFormat)
		}
	}
	s := f.State
	if s.Description != nil {
		s.Description.Revision = f.DescriptionRevision
	}
	s.fill()
	for id, value := range s.Rollouts { // as it was put
		var b bytes.Buffer
		if err := json.Compact(&b, value); err != nil {
			return State{}, fmt.Errorf("load cluster state %s: rollout %d: %v", path, id, err)
		}
		s.Rollouts[id] = b.Bytes()
	}
	return s, nil
}

// fill makes the maps that are not there.
func (s *State) fill() {
	if s.Images == nil {
		s.Images = map[string]*Image{}
	}
	if s.Desired == nil {
		s.Desired = Refs{}
	}
	if s.Next == nil {
		s.Next = Refs{}
	}
	if s.Watches == nil {
		s.Watches = map[string]Watch{}
	}
	if s.Rollouts == nil {
		s.Rollouts = map[int]json.RawMessage{}
	}
}
