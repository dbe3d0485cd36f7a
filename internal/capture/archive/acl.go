package archive

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The tags and the version of POSIX ACLs in xattrs (linux/posix_acl_xattr.h, linux/posix_acl.h).
const (
	aclVersion = 2

	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20

	aclNoID = math.MaxUint32 // the id of entries without one
)

type aclEntry struct {
	tag, perm uint16
	id        uint32
}

// maxACL is more entries than the kernel allows in an xattr.
const maxACL = 8192

var errNamedACL = errors.New("make the archive with tar --xattrs --acls, or with --numeric-owner")

// parseACL converts the text form of an ACL, entries such as "user::rw-" separated by commas or newlines, to the form
// of the kernel's xattr. Names of users have no meaning on another machine, so an entry must have a number; star writes
// one behind the name. The result is nil for an access ACL that says no more than the mode.
func parseACL(text string, access bool) ([]byte, error) {
	var list []aclEntry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := parseACLEntry(line)
		if err != nil {
			return nil, err
		}
		if list = append(list, e); len(list) > maxACL {
			return nil, errors.New("ACL of too many entries")
		}
	}
	extended := func(e aclEntry) bool { return e.tag&(aclUser|aclGroup|aclMask) != 0 }
	if len(list) == 0 || access && len(list) <= 3 && !slices.ContainsFunc(list, extended) {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b aclEntry) int {
		return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id))
	})
	b := binary.LittleEndian.AppendUint32(nil, aclVersion)
	for i, e := range list {
		if i > 0 && e.tag == list[i-1].tag && e.id == list[i-1].id {
			return nil, errors.New("ACL with an entry twice")
		}
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b, nil
}

// maskOf returns the mask of an ACL in the form of the kernel, and whether it has one.
func maskOf(b []byte) (mask uint16, ok bool) {
	const head, size = 4, 8
	for i := head; i+size <= len(b); i += size {
		if binary.LittleEndian.Uint16(b[i:]) == aclMask {
			return binary.LittleEndian.Uint16(b[i+2:]) & 7, true
		}
	}
	return 0, false
}

// parseACLEntry parses TAG:[ID]:PERMISSIONS[:ID].
func parseACLEntry(line string) (e aclEntry, err error) {
	f := strings.Split(line, ":")
	if len(f) < 3 || len(f) > 4 {
		return e, fmt.Errorf("ACL entry %q is not understood", shortened(line))
	}
	tag, id, perm := f[0], f[1], f[2]
	if len(f) == 4 {
		id = f[3]
	}
	for _, c := range perm {
		bit, ok := map[rune]uint16{'r': 4, 'w': 2, 'x': 1, '-': 0}[c]
		if !ok {
			return e, fmt.Errorf("ACL entry %q: permissions are not understood", shortened(line))
		}
		e.perm |= bit
	}
	named := id != ""
	switch {
	case tag == "user" && named:
		e.tag = aclUser
	case tag == "user":
		e.tag = aclUserObj
	case tag == "group" && named:
		e.tag = aclGroup
	case tag == "group":
		e.tag = aclGroupObj
	case tag == "mask" && !named:
		e.tag = aclMask
	case tag == "other" && !named:
		e.tag = aclOther
	default:
		return e, fmt.Errorf("ACL entry %q is not understood", shortened(line))
	}
	e.id = aclNoID
	if named {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil || n == aclNoID {
			return e, fmt.Errorf("ACL entry %q has a name and no number: %w", shortened(line), errNamedACL)
		}
		e.id = uint32(n)
	}
	return e, nil
}
