package stream

import (
	"encoding/json"
	"errors"
	"slices"

	"dim/internal/coord"
)

// descriptionEdit changes a description. With one more node in an inventory of 10,000 it has some hundred bytes, while
// the inventory has the greater part of a megabyte.
type descriptionEdit struct {
	// Description is the one after the change. The data of each file is only what stands between the bytes that Kept
	// counts.
	Description coord.Description `json:"description"`
	Kept        []keptBytes       `json:"kept"` // for each file of Description
}

// keptBytes are the numbers of bytes at the beginning and at the end of a file that the file of the same name had there
// before the change.
type keptBytes struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

// newEdit returns what changes a description to another; nil if either is nil.
func newEdit(from, to *coord.Description) *descriptionEdit {
	if from == nil || to == nil {
		return nil
	}
	e := &descriptionEdit{Description: *to, Kept: make([]keptBytes, len(to.Files))}
	e.Description.Files = make([]coord.File, len(to.Files))
	for i, f := range to.Files {
		old := fileOf(from, f.Name)
		k := &e.Kept[i]
		for k.First < len(old) && k.First < len(f.Data) && old[k.First] == f.Data[k.First] {
			k.First++
		}
		rest, more := old[k.First:], f.Data[k.First:]
		for k.Last < len(rest) && k.Last < len(more) && rest[len(rest)-1-k.Last] == more[len(more)-1-k.Last] {
			k.Last++
		}
		e.Description.Files[i] = coord.File{Name: f.Name, Data: more[:len(more)-k.Last]}
	}
	return e
}

// fileOf returns the bytes of a file of d, none if it has no such file.
func fileOf(d *coord.Description, name string) []byte {
	for _, f := range d.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

var errEdit = errors.New("the change of the description does not fit the description that is here")

// onto returns the description that e makes of another. The error is errEdit if e does not fit that one, or if it is
// nil.
func (e *descriptionEdit) onto(from *coord.Description) (coord.Description, error) {
	d := e.Description
	if from == nil || len(e.Kept) != len(d.Files) {
		return d, errEdit
	}
	d.Files = make([]coord.File, len(e.Kept))
	size := 0
	for i, f := range e.Description.Files {
		old, k := fileOf(from, f.Name), e.Kept[i]
		if k.First < 0 || k.Last < 0 || k.First > len(old) || k.Last > len(old)-k.First {
			return d, errEdit
		}
		if size += k.First + len(f.Data) + k.Last; size > maxMessage {
			return d, errEdit
		}
		d.Files[i] = f
		if k.First+k.Last > 0 {
			d.Files[i].Data = slices.Concat(old[:k.First], f.Data, old[len(old)-k.Last:])
		}
	}
	return d, nil
}

// complete puts the description that the edit of m makes of another into m.Set.
func (m *message) complete(before *coord.Description) error {
	if m.Edit == nil {
		return nil
	}
	d, err := m.Edit.onto(before)
	if err != nil {
		return err
	}
	value, err := json.Marshal(&d)
	if err != nil {
		return err
	}
	m.Set = m.Set.with(facts{keyDescription: value}, nil)
	return nil
}
