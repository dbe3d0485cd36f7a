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

	"dim/internal/durable"
	"dim/internal/image"
)

// version is the form of an image.Version in etcd and on disk: with the root entry, without tags.
type version struct {
	image.Version
	Root image.Entry `json:"root"`
}

func (v version) decoded() image.Version {
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
		i.Versions = append(i.Versions, v.decoded())
	}
	i.complete()
	return nil
}

// complete sorts the versions and sets their tags.
func (i *Image) complete() {
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

// entry is the value of a key and the revision of its last change.
type entry struct {
	value    []byte
	revision int64
}

// decode returns the State of all keys. Their names are without the prefix. Unknown keys are ignored.
func decode(store string, revision int64, keys map[string]entry) (State, error) {
	s := State{Store: store, Revision: revision}
	s.makeMaps()
	for key, e := range keys {
		if err := s.decodeKey(key, e); err != nil {
			return State{}, fmt.Errorf("read cluster state: key %s: %w", key, err)
		}
	}
	for _, i := range s.Images {
		i.complete()
	}
	return s, nil
}

func (s *State) decodeKey(key string, e entry) error {
	switch {
	case key == "format" && string(e.value) != Format:
		return fmt.Errorf("format %s: %w", e.value, ErrNewerFormat)
	case key == descriptionKey:
		s.Description = &Description{}
		err := json.Unmarshal(e.value, s.Description)
		s.Description.Revision = e.revision
		return err
	case key == restoringKey:
		s.Restoring = true
	case key == supersededKey:
		return json.Unmarshal(e.value, &s.Superseded)
	case key == "desired":
		return json.Unmarshal(e.value, &s.Desired)
	case key == "next":
		return json.Unmarshal(e.value, &s.Next)
	case key == "layers":
		return json.Unmarshal(e.value, &s.Layers)
	case key == "leaving":
		return json.Unmarshal(e.value, &s.Leaving)
	case key == "renaming":
		return json.Unmarshal(e.value, &s.Renaming)
	case strings.HasPrefix(key, "rollouts/"):
		id, err := strconv.Atoi(strings.TrimPrefix(key, "rollouts/"))
		s.Rollouts[id] = e.value
		return err
	case strings.HasPrefix(key, "watches/"):
		var w Watch
		err := json.Unmarshal(e.value, &w)
		s.Watches[strings.TrimPrefix(key, "watches/")] = w
		return err
	case strings.HasPrefix(key, "servers/"):
		var v Server
		err := json.Unmarshal(e.value, &v)
		s.Servers[strings.TrimPrefix(key, "servers/")] = v
		return err
	case strings.HasPrefix(key, "revoked/"):
		var v Revocation
		err := json.Unmarshal(e.value, &v)
		s.Revoked[strings.TrimPrefix(key, "revoked/")] = v
		return err
	case strings.HasPrefix(key, "images/"):
		return s.decodeImageKey(strings.Split(key, "/"), e)
	}
	return nil
}

// decodeImageKey decodes a key of an image: images/NAME/last, images/NAME/current, images/NAME/versions/NUMBER,
// images/NAME/tags/TAG or images/NAME/reserved/NUMBER.
func (s *State) decodeImageKey(part []string, e entry) error {
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
		i.Versions = append(i.Versions, v.decoded())
	case len(part) == 4 && part[2] == "reserved":
		err = i.decodeReservation(part[3], e.value)
	}
	return err
}

func (i *Image) decodeReservation(name string, value []byte) error {
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

// SaveState writes s to path. A crash at any moment leaves the state before or s.
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

// LoadState returns the State that SaveState wrote to path, or an empty State if there is no file.
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
	s.makeMaps()
	for id, value := range s.Rollouts { // remove the indentation of SaveState
		var b bytes.Buffer
		if err := json.Compact(&b, value); err != nil {
			return State{}, fmt.Errorf("load cluster state %s: rollout %d: %v", path, id, err)
		}
		s.Rollouts[id] = b.Bytes()
	}
	return s, nil
}

// makeMaps makes the maps that are nil.
func (s *State) makeMaps() {
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
	if s.Servers == nil {
		s.Servers = map[string]Server{}
	}
	if s.Revoked == nil {
		s.Revoked = map[string]Revocation{}
	}
	if s.Rollouts == nil {
		s.Rollouts = map[int]json.RawMessage{}
	}
}
