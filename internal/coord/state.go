package coord

import (
	"encoding/json"
	"slices"
	"time"

	"dim/internal/image"
)

// State is the whole declared state at one revision. A State that coord has returned must not be changed.
type State struct {
	// Store identifies the etcd cluster. Revisions of two clusters cannot be compared.
	Store       string            `json:"store"`
	Revision    int64             `json:"revision"`
	Restoring   bool              `json:"-"`           // a state that was lost is being put back; this is a part of it
	Description *Description      `json:"description"` // nil: none applied yet
	Images      map[string]*Image `json:"images"`      // by name; images that a number was given for
	// Desired are the references of nodes that do not follow the current version of their image. Next are references
	// that nodes follow from their next boot on. See Follows.
	Desired Refs `json:"desired"`
	Next    Refs `json:"next"`
	// Rollouts are the records of rollouts, by number. Package rollout defines their form.
	Rollouts map[int]json.RawMessage `json:"rollouts"`
	Watches  map[string]Watch        `json:"watches"` // by image
	// Layers are the servers that have the layers of nodes. A node that is not in it has its layer on the server that
	// the description names first. Leaving are the servers to which nodes go without their layer, as soon as the server
	// that has it has confirmed that it no longer serves them.
	Layers  Holders `json:"layers,omitempty"`
	Leaving Holders `json:"leaving,omitempty"`
	// Renaming are nodes that have another name than before, by their new name, until the server that has their layer
	// has confirmed that the layer has the new name, too.
	Renaming map[string]Renaming `json:"renaming,omitempty"`
	// Servers are the servers that have joined, by name. Revoked are identities that have ended, by id.
	Servers map[string]Server     `json:"servers"`
	Revoked map[string]Revocation `json:"revoked"`
	// Superseded is the head that goes on without the heads of this state, and since when; zero: none is known. What is
	// put into the state after that is lost when these heads join that one again.
	Superseded Revocation `json:"superseded,omitzero"`
}

// Refs are references, by node.
type Refs map[string]image.Ref

// UnmarshalJSON implements json.Unmarshaler. It leaves out texts that do not name a version, such as a reference in a
// form that this program does not know.
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

// Description is the applied cluster description: the XML file and the files that it refers to.
type Description struct {
	Files    []File       `json:"files"` // the XML file first
	Digest   image.Digest `json:"digest"`
	Applied  time.Time    `json:"applied"`
	Revision int64        `json:"-"` // of the last PutDescription

	By      string `json:"by,omitempty"`      // who applied it
	From    string `json:"from,omitempty"`    // the file, "HOST:PATH"; "": it is no file, or not known
	Message string `json:"message,omitempty"` // what the person says about it
	Summary string `json:"summary,omitempty"` // what it changed, in a line
}

// File is one file of a description.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Image has the versions of one image.
type Image struct {
	Last     int             // highest number ever given, to a version or a reservation
	Current  int             // the version that nodes without a reference follow; 0: not declared, see Followed
	Versions []image.Version // by number, with their Tags
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

// All returns the versions of the image, by number. There may be no image.
func (i *Image) All() []image.Version {
	if i == nil {
		return nil
	}
	return i.Versions
}

// Followed returns the version that nodes without a reference of their own follow: the current one. If none is
// declared, as in states that were made before there were rollouts, it is the newest.
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

// Follows returns the reference that a node with an image follows now, and the one that it follows from its next boot
// on, which may be the zero Ref. It ignores references to other images: they are from a time when the node had that
// image. If the image has no version, now has neither a number nor a tag.
func (s State) Follows(node, name string) (now, next image.Ref) {
	if now = s.Desired[node]; now.Image != name {
		now = image.Ref{Image: name, Number: s.Images[name].current()}
	}
	if next = s.Next[node]; next.Image != name {
		next = image.Ref{}
	}
	return now, next
}

// Resolve returns the version that a reference names. Without a number and a tag that is the newest.
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
