package stream

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"dim/internal/coord"
)

// maker makes the positions of states, one after the other. It makes the facts again of what is another value than in
// the state before; package coord keeps values that a change is not about. The zero maker has had no state.
type maker struct {
	at     position
	fields map[string]facts // by field, without those of images
	images map[string]facts // by image
	made   int              // fields and images whose facts were made
}

// position returns the position of an end that has a state. Commands of rollouts are not among its facts: only heads
// run these.
func (m *maker) position(s coord.State) (position, error) {
	common, nodes, err := m.takeOver(&s)
	if err != nil {
		*m = maker{}
		return position{}, err
	}
	p := position{s.Store, s.Revision, m.at.common, m.at.nodes, s}
	if common || p.common == nil {
		all := m.union(func(field string) bool { return !own(field) })
		if p.common == nil || !p.common.facts.equal(all) {
			p.common = newCommon(all)
			p.common.description = s.Description
		}
	}
	if nodes || p.nodes == nil {
		p.nodes = m.union(own)
	}
	m.at = p
	return p, nil
}

// takeOver makes the facts of the fields of s that have changed. It returns whether facts that all servers get have
// changed, and facts about nodes.
func (m *maker) takeOver(s *coord.State) (common, nodes bool, err error) {
	if m.fields == nil {
		m.fields = map[string]facts{}
	}
	now, before := reflect.ValueOf(s).Elem(), reflect.ValueOf(&m.at.state).Elem()
	for i := range now.NumField() {
		name, _, _ := strings.Cut(now.Type().Field(i).Tag.Get("json"), ",")
		if name == "-" || slices.Contains(unsent[:], name) ||
			now.Field(i).UnsafePointer() == before.Field(i).UnsafePointer() {
			continue
		}
		if err := m.field(name, s, now.Field(i).Interface()); err != nil {
			return false, false, fmt.Errorf("%s: %w", name, err)
		}
		if own(name) {
			nodes = true
		} else {
			common = true
		}
	}
	return common, nodes, nil
}

// union returns the facts of some fields.
func (m *maker) union(of func(field string) bool) facts {
	all := facts{}
	for name, f := range m.fields {
		if of(name) {
			maps.Copy(all, f)
		}
	}
	return all
}

// field makes the facts of a field of s.
func (m *maker) field(name string, s *coord.State, value any) (err error) {
	if name == fieldImages {
		m.fields[name], err = m.imageFacts(s.Images)
		return err
	}
	m.made++
	f := facts{}
	if m.fields[name] = f; name == keyDescription {
		if d := s.Description; d != nil {
			f[keyDescription], err = json.Marshal(d)
			f[keyRevision] = fmt.Append(nil, d.Revision)
		}
		return err
	}
	all, err := members(value)
	if err != nil {
		return err
	}
	for key, v := range all {
		if name == fieldRollouts {
			if v, err = without(v, "hook", "check"); err != nil {
				return err
			}
		}
		f[name+"/"+key] = v
	}
	return nil
}

// imageFacts returns the facts of all images. It makes those of images that have changed.
func (m *maker) imageFacts(images map[string]*coord.Image) (facts, error) {
	before := m.images
	m.images = make(map[string]facts, len(images))
	all := facts{}
	for name, im := range images {
		f := before[name]
		if f == nil || im != m.at.state.Images[name] {
			m.made++
			f = facts{}
			if err := f.addImage(name, im); err != nil {
				return nil, err
			}
		}
		m.images[name] = f
		maps.Copy(all, f)
	}
	return all, nil
}

// addImage adds an image and its versions.
func (f facts) addImage(name string, of *coord.Image) error {
	value, err := json.Marshal(of)
	if err != nil {
		return err
	}
	var im struct {
		Versions []json.RawMessage `json:"versions"`
	}
	if err := json.Unmarshal(value, &im); err != nil {
		return err
	}
	for _, v := range im.Versions {
		var which struct {
			Number int `json:"version"`
		}
		if err := json.Unmarshal(v, &which); err != nil {
			return err
		}
		f[fmt.Sprintf("%s/%s/%d", fieldVersions, name, which.Number)] = v
	}
	f[fieldImages+"/"+name], err = without(value, "versions", "reserved", "last")
	return err
}
