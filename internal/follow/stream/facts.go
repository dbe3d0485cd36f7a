package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dim/internal/coord"
	"dim/internal/image"
)

// facts are a state in small parts, in JSON, by key. docs/formats/peer.md has the keys: a field of a coord.State whose
// value is an object has a key for each of its members, such as "desired/n01", every other field one key. Values are in
// the form that json.Marshal writes.
type facts map[string]json.RawMessage

// Parts of keys.
const (
	keyDescription = "description"
	keyRevision    = "description_revision"
	fieldImages    = "images"
	fieldVersions  = "versions" // of all images: "versions/compute/12"
	fieldDesired   = "desired"
	fieldNext      = "next"
	fieldLayers    = "layers"
	fieldLeaving   = "leaving"
	fieldRollouts  = "rollouts"
	fieldServers   = "servers"
	fieldRevoked   = "revoked"
)

// unsent are the fields of a state that no image server needs, and those that each message has in another form.
var unsent = [...]string{"watches", "superseded", "store", "revision"}

// members returns the members of the JSON object that v is encoded as; none if it is encoded as null.
func members(v any) (m map[string]json.RawMessage, err error) {
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// without returns a JSON object without some members.
func without(object json.RawMessage, names ...string) (json.RawMessage, error) {
	m, err := members(object)
	for _, name := range names {
		delete(m, name)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// state returns the state that f is the facts of.
func (f facts) state() (s coord.State, err error) {
	fields := map[string]any{}
	objects := map[string]map[string]any{}
	for _, name := range []string{
		fieldImages, fieldDesired, fieldNext, fieldRollouts, fieldServers, fieldRevoked, "watches",
	} {
		objects[name] = map[string]any{}
	}
	versions := map[string][]json.RawMessage{}
	for key, value := range f {
		field, member, isMember := strings.Cut(key, "/")
		name, _, _ := strings.Cut(member, "/")
		switch {
		case key == keyRevision:
		case !isMember:
			fields[key] = value
		case field == fieldVersions:
			versions[name] = append(versions[name], value)
		default:
			if objects[field] == nil {
				objects[field] = map[string]any{}
			}
			objects[field][member] = value
		}
	}
	for name, list := range versions {
		value, ok := objects[fieldImages][name].(json.RawMessage)
		if !ok {
			return s, fmt.Errorf("versions of the image %q, which is not there", name)
		}
		im, err := members(value)
		if err != nil || im == nil {
			return s, fmt.Errorf("image %q: %v", name, err)
		}
		if im["versions"], err = json.Marshal(list); err != nil {
			return s, err
		}
		objects[fieldImages][name] = im
	}
	for name, object := range objects {
		fields[name] = object
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	return s, f.complete(&s)
}

// complete sets what a state does not have in its JSON form, and refuses a state that has holes.
func (f facts) complete(s *coord.State) error {
	for name, im := range s.Images {
		if im == nil {
			return fmt.Errorf("image %q is null", name)
		}
		newest, _ := im.Newest()
		im.Last = max(im.Last, newest.Number) // only heads give numbers
	}
	if s.Description == nil {
		return nil
	}
	return json.Unmarshal(f[keyRevision], &s.Description.Revision)
}

// changed returns the state that f is the facts of, given the state s before a change that led to f. It reads what the
// change is about: the parts of s that it leaves as they are are not read again, and are the same in both states.
func (f facts) changed(s coord.State, set facts, removed []string) (coord.State, error) {
	part, gone := facts{}, map[string][]string{} // members that are gone, by field
	for key, value := range set {
		f.touch(part, key)
		if field, _, _ := strings.Cut(key, "/"); field != fieldVersions && field != fieldImages {
			part[key] = value
		}
	}
	for _, key := range removed {
		f.touch(part, key)
		field, member, _ := strings.Cut(key, "/")
		gone[field] = append(gone[field], member)
	}
	read, err := part.state()
	if err != nil {
		return s, err
	}
	if read.Description != nil || gone[keyDescription] != nil {
		s.Description = read.Description
	}
	s.Images = changedMembers(s.Images, read.Images, gone[fieldImages])
	s.Desired = changedMembers(s.Desired, read.Desired, gone[fieldDesired])
	s.Next = changedMembers(s.Next, read.Next, gone[fieldNext])
	s.Layers = changedMembers(s.Layers, read.Layers, gone[fieldLayers])
	s.Leaving = changedMembers(s.Leaving, read.Leaving, gone[fieldLeaving])
	s.Renaming = changedMembers(s.Renaming, read.Renaming, gone["renaming"])
	s.Servers = changedMembers(s.Servers, read.Servers, gone[fieldServers])
	s.Revoked = changedMembers(s.Revoked, read.Revoked, gone[fieldRevoked])
	s.Rollouts, err = changedRollouts(s.Rollouts, read.Rollouts, gone[fieldRollouts])
	return s, err
}

// touch adds to part what has to be read together with a fact that has changed: all facts of an image, or both of the
// description.
func (f facts) touch(part facts, key string) {
	field, member, _ := strings.Cut(key, "/")
	name, _, _ := strings.Cut(member, "/")
	switch field {
	case keyDescription, keyRevision:
		for _, both := range []string{keyDescription, keyRevision} {
			if value, ok := f[both]; ok {
				part[both] = value
			}
		}
	case fieldImages, fieldVersions:
		if _, done := part[fieldImages+"/"+name]; done {
			return
		}
		for other, value := range f {
			if other == fieldImages+"/"+name || strings.HasPrefix(other, fieldVersions+"/"+name+"/") {
				part[other] = value
			}
		}
	}
}

// changedMembers returns a map after a change; the same map if there is none.
func changedMembers[M ~map[K]V, K ~string, V any](m, set M, gone []string) M {
	if len(set) == 0 && len(gone) == 0 {
		return m
	}
	next := make(M, len(m)+len(set))
	maps.Copy(next, m)
	for _, key := range gone {
		delete(next, K(key))
	}
	maps.Copy(next, set)
	return next
}

// changedRollouts is changedMembers for records, whose keys are numbers.
func changedRollouts(m, set map[int]json.RawMessage, gone []string) (map[int]json.RawMessage, error) {
	if len(set) == 0 && len(gone) == 0 {
		return m, nil
	}
	next := maps.Clone(m)
	if next == nil {
		next = map[int]json.RawMessage{}
	}
	for _, key := range gone {
		id, err := strconv.Atoi(key)
		if err != nil {
			return m, fmt.Errorf("rollout %q: %w", key, err)
		}
		delete(next, id)
	}
	maps.Copy(next, set)
	return next, nil
}

// digest returns what proves that two servers have the same facts.
func (f facts) digest() image.Digest {
	h := sha256.New()
	var size [8]byte
	write := func(b []byte) {
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	for _, key := range slices.Sorted(maps.Keys(f)) {
		write([]byte(key))
		write(f[key])
	}
	return image.Digest(h.Sum(nil))
}

// ofNode are the fields whose facts are about one node each. A server gets those of its own nodes only.
var ofNode = [...]string{fieldDesired, fieldNext, fieldLayers, fieldLeaving}

// own reports whether a fact is about one node.
func own(key string) bool {
	field, _, _ := strings.Cut(key, "/")
	return slices.Contains(ofNode[:], field)
}

// split returns the facts that all servers get, and those about nodes.
func (f facts) split() (common, ofNodes facts) {
	common, ofNodes = facts{}, facts{}
	for key, value := range f {
		if own(key) {
			ofNodes[key] = value
		} else {
			common[key] = value
		}
	}
	return common, ofNodes
}

// ofNodes returns the facts about some nodes.
func (f facts) ofNodes(nodes []string) facts {
	some := facts{}
	for _, field := range ofNode {
		for _, node := range nodes {
			if value, ok := f[field+"/"+node]; ok {
				some[field+"/"+node] = value
			}
		}
	}
	return some
}

// difference returns what changes f to next.
func (f facts) difference(next facts) (set facts, removed []string) {
	set = facts{}
	for key, value := range next {
		if old, ok := f[key]; !ok || string(old) != string(value) {
			set[key] = value
		}
	}
	for key := range f {
		if _, ok := next[key]; !ok {
			removed = append(removed, key)
		}
	}
	slices.Sort(removed)
	return set, removed
}

// equal reports whether two sets of facts are the same.
func (f facts) equal(other facts) bool {
	return maps.EqualFunc(f, other, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })
}

// with returns f after a change.
func (f facts) with(set facts, removed []string) facts {
	next := make(facts, len(f)+len(set))
	maps.Copy(next, f)
	for _, key := range removed {
		delete(next, key)
	}
	maps.Copy(next, set)
	return next
}
