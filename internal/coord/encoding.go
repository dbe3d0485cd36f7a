package coord

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
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

// decoder makes the State after changes of some keys. The other fields keep the values of the State before.
type decoder struct {
	State
	copied map[string]bool   // fields whose map is not that of the State before any more
	images map[string]*Image // that have changed
}

// key takes over the value of a key, or that the key is not there any more. Keys are without the prefix. Unknown ones
// are ignored.
func (d *decoder) key(key string, e entry, there bool) (err error) {
	field, name, _ := strings.Cut(key, "/")
	switch field {
	case "format":
		if there && string(e.value) != Format {
			return fmt.Errorf("format %s: %w", e.value, ErrNewerFormat)
		}
	case descriptionKey:
		if d.Description = nil; there {
			d.Description = &Description{Revision: e.revision}
			return json.Unmarshal(e.value, d.Description)
		}
	case restoringKey:
		d.Restoring = there
	case supersededKey:
		d.Superseded, err = decodeValue(Revocation{}, e, there)
	case "desired":
		d.Desired, err = decodeValue(Refs{}, e, there)
	case "next":
		d.Next, err = decodeValue(Refs{}, e, there)
	case "layers":
		d.Layers, err = decodeValue[Holders](nil, e, there)
	case "leaving":
		d.Leaving, err = decodeValue[Holders](nil, e, there)
	case "renaming":
		d.Renaming, err = decodeValue[map[string]Renaming](nil, e, there)
	case "rollouts":
		d.Rollouts = ownMap(d, field, d.Rollouts)
		var id int
		id, err = strconv.Atoi(name)
		if delete(d.Rollouts, id); there {
			d.Rollouts[id] = e.value
		}
	case "watches":
		d.Watches = ownMap(d, field, d.Watches)
		err = decodeMember(d.Watches, name, e, there)
	case "servers":
		d.Servers = ownMap(d, field, d.Servers)
		err = decodeMember(d.Servers, name, e, there)
	case "revoked":
		d.Revoked = ownMap(d, field, d.Revoked)
		err = decodeMember(d.Revoked, name, e, there)
	case "images":
		err = d.imageKey(strings.Split(name, "/"), e, there)
	}
	return err
}

// decodeValue returns the value of a key that is a field of State, or none if the key is not there.
func decodeValue[V any](none V, e entry, there bool) (V, error) {
	if !there {
		return none, nil
	}
	var v V
	err := json.Unmarshal(e.value, &v)
	return v, err
}

// ownMap returns a map of a field of d that may be changed.
func ownMap[M ~map[K]V, K comparable, V any](d *decoder, field string, m M) M {
	if d.copied[field] {
		return m
	}
	d.copied[field] = true
	return maps.Clone(m)
}

// decodeMember takes over the value of a key that is a member of a field.
func decodeMember[K comparable, V any](m map[K]V, name K, e entry, there bool) error {
	if delete(m, name); !there {
		return nil
	}
	v, err := decodeValue(*new(V), e, true)
	m[name] = v
	return err
}

// imageKey takes over a key of an image, given its parts behind "images/": NAME/last, NAME/current,
// NAME/versions/NUMBER, NAME/tags/TAG or NAME/reserved/NUMBER.
func (d *decoder) imageKey(part []string, e entry, there bool) (err error) {
	switch {
	case len(part) == 2 && part[1] == "last":
		d.image(part[0]).Last, err = decodeNumber(e, there)
	case len(part) == 2 && part[1] == "current":
		d.image(part[0]).Current, err = decodeNumber(e, there)
	case len(part) == 3 && part[1] == "tags":
		i := d.image(part[0])
		if delete(i.Tags, part[2]); there {
			i.Tags[part[2]], err = decodeNumber(e, true)
		}
	case len(part) == 3 && part[1] == "versions":
		err = d.image(part[0]).decodeVersion(part[2], e, there)
	case len(part) == 3 && part[1] == "reserved":
		err = d.image(part[0]).decodeReservation(part[2], e, there)
	}
	return err
}

func decodeNumber(e entry, there bool) (int, error) {
	if !there {
		return 0, nil
	}
	return strconv.Atoi(string(e.value))
}

// image returns an image of d that may be changed.
func (d *decoder) image(name string) *Image {
	if i := d.images[name]; i != nil {
		return i
	}
	i := new(Image)
	if before := d.Images[name]; before != nil {
		*i = *before
	}
	i.Versions, i.Tags, i.Reserved = slices.Clone(i.Versions), maps.Clone(i.Tags), maps.Clone(i.Reserved)
	if i.Tags == nil {
		i.Tags = map[string]int{}
	}
	d.images[name] = i
	return i
}

func (i *Image) decodeVersion(name string, e entry, there bool) error {
	number, err := strconv.Atoi(name)
	if err != nil {
		return err
	}
	i.Versions = slices.DeleteFunc(i.Versions, func(v image.Version) bool { return v.Number == number })
	if !there {
		if len(i.Versions) == 0 {
			i.Versions = nil
		}
		return nil
	}
	v, err := decodeValue(version{}, e, true)
	i.Versions = append(i.Versions, v.decoded())
	return err
}

func (i *Image) decodeReservation(name string, e entry, there bool) error {
	number, err := strconv.Atoi(name)
	if err != nil {
		return err
	}
	if i.Reserved == nil {
		i.Reserved = map[int]Reservation{}
	}
	if err = decodeMember(i.Reserved, number, e, there); len(i.Reserved) == 0 {
		i.Reserved = nil
	}
	return err
}

// completeImages adds the images that have changed. One of which no key is left is removed.
func (d *decoder) completeImages() {
	if len(d.images) > 0 {
		d.Images = ownMap(d, "images", d.Images)
	}
	for name, i := range d.images {
		i.complete()
		if d.Images[name] = i; i.empty() {
			delete(d.Images, name)
		}
	}
}

// empty reports whether no key of an image is left.
func (i *Image) empty() bool {
	return i.Last == 0 && i.Current == 0 && len(i.Versions) == 0 && len(i.Tags) == 0 && len(i.Reserved) == 0
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
	b, err := json.Marshal(f)
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
	for id, value := range s.Rollouts { // earlier programs wrote the file with indentation
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
