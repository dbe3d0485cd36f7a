package layer

import (
	"encoding/json"

	"golang.org/x/sys/unix"

	"dim/internal/recordmerge"
)

// MergedAt returns the stamp of the switch that made the file e by merging records; "" if none did.
func (e Entry) MergedAt() string { return e.text(xattrMerged, make([]byte, 64)) }

// SetMergedAt marks the file e as one that the switch with a stamp has made by merging records.
func (e Entry) SetMergedAt(stamp string) error { return e.setXattr(xattrMerged, []byte(stamp)) }

// conflictsMax is how many bytes of conflicts are kept with a file. A file system may have room for 4 KB of extended
// attributes.
const conflictsMax = 1500

// SetConflicts marks the file e of the saved area as one whose records were merged. It keeps as many of the conflicts
// as there is room for.
func (e Entry) SetConflicts(list []recordmerge.Conflict) error {
	text := []byte("[]")
	for n := len(list); n > 0; n /= 2 {
		if b, err := json.Marshal(list[:n]); err == nil && len(b) <= conflictsMax {
			text = b
			break
		}
	}
	err := e.setXattr(xattrConflicts, text)
	if err == unix.ENOSPC || err == unix.E2BIG || err == unix.ERANGE {
		err = e.setXattr(xattrConflicts, []byte("[]"))
	}
	return err
}

// DropConflicts removes what SetConflicts has set: the file is in the layer again.
func (e Entry) DropConflicts() error { return e.drop(xattrConflicts) }

// conflicts returns what SetConflicts has kept. merged is false if e has no such mark.
func (e Entry) conflicts() (list []recordmerge.Conflict, merged bool) {
	v, err := e.Xattr(xattrConflicts, make([]byte, 2*conflictsMax))
	if err != nil {
		return nil, false
	}
	_ = json.Unmarshal(v, &list) // a list that cannot be read is one that is not known
	return list, true
}
