package archive

import (
	"archive/tar"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"

	"dim/internal/capture/draft"
	"dim/internal/image"
)

func entry(h *tar.Header) (image.Entry, error) {
	e := image.Entry{
		Mode: uint32(h.Mode) & 0o7777, Nlink: 1,
		Mtime: image.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())},
	}
	var err error
	if e.UID, err = number("owner", int64(h.Uid)); err != nil {
		return e, err
	}
	if e.GID, err = number("group", int64(h.Gid)); err != nil {
		return e, err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.Type, e.Size = image.Regular, uint64(h.Size)
		if h.Size > image.MaxFile {
			return e, fmt.Errorf("%d bytes are too many for a file: at most %d", h.Size, uint64(image.MaxFile))
		}
	case tar.TypeDir, typeDumpDir:
		e.Type = image.Directory
	case tar.TypeSymlink:
		e.Type, e.Target = image.Symlink, h.Linkname
		if !e.ValidTarget() {
			return e, errors.New("the target of the symlink is empty, too long or has a NUL")
		}
	case tar.TypeChar:
		e.Type, err = image.CharDevice, device(&e, h)
	case tar.TypeBlock:
		e.Type, err = image.BlockDevice, device(&e, h)
	case tar.TypeFifo:
		e.Type = image.FIFO
	default:
		return e, fmt.Errorf("kind %q is not understood", h.Typeflag)
	}
	if err != nil {
		return e, err
	}
	e.Xattrs, err = xattrs(h.PAXRecords)
	for _, x := range e.Xattrs {
		if mask, ok := maskOf(x.Value); ok && x.Name == nameACLAccess {
			e.Mode = e.Mode&^0o070 | uint32(mask)<<3 // as the kernel shows it; some programs write the owning group's
		}
	}
	return e, err
}

// number checks an owner or device number.
func number(what string, n int64) (uint32, error) {
	if n < 0 || n > math.MaxUint32 {
		return 0, fmt.Errorf("%s %d is out of range", what, n)
	}
	return uint32(n), nil
}

func device(e *image.Entry, h *tar.Header) (err error) {
	if e.Major, err = number("device", h.Devmajor); err != nil {
		return err
	}
	e.Minor, err = number("device", h.Devminor)
	return err
}

// The keys of pax records (GNU tar, src/xheader.c).
const (
	keyXattr      = "SCHILY.xattr."
	keyLibarchive = "LIBARCHIVE.xattr." // name with escapes as in URLs, value in base64 (libarchive)
	keySELinux    = "RHT.security.selinux"
	keyACLAccess  = "SCHILY.acl.access"
	keyACLDefault = "SCHILY.acl.default"

	nameSELinux    = "security.selinux"
	nameACLAccess  = "system.posix_acl_access"
	nameACLDefault = "system.posix_acl_default"
)

// unescape undoes the escapes of GNU tar in the names of xattrs.
func unescape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "%3D", "="), "%25", "%")
}

// xattr returns the xattr in a pax record, and whether there is one.
func xattr(key, value string) (name string, content []byte, ok bool, err error) {
	if escaped, ok := strings.CutPrefix(key, keyXattr); ok {
		return unescape(escaped), []byte(value), true, nil
	}
	escaped, ok := strings.CutPrefix(key, keyLibarchive)
	if !ok {
		return "", nil, false, nil
	}
	if name, err = url.PathUnescape(escaped); err == nil {
		content, err = base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	}
	if err != nil {
		return "", nil, false, fmt.Errorf("%s: %w", shortened(key), err)
	}
	return name, content, true, nil
}

// notUnderstood returns the keys of pax records that seem to have xattrs and are not read.
func notUnderstood(records map[string]string) string {
	var list []string
	for key := range records {
		if strings.Contains(strings.ToLower(key), "xattr") &&
			!strings.HasPrefix(key, keyXattr) && !strings.HasPrefix(key, keyLibarchive) {
			list = append(list, shortened(key))
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// xattrs returns the captured xattrs, sorted. An archive has ACLs as text, as the kernel's xattr, or both. If it has
// both, the xattr is used, because the text may have names of users of the machine that made the archive.
func xattrs(records map[string]string) ([]image.Xattr, error) {
	values := map[string][]byte{}
	for key, value := range records {
		name, content, ok, err := xattr(key, value)
		if err != nil {
			return nil, err
		}
		if !ok || !draft.CapturedXattr(name) {
			continue
		}
		x := image.Xattr{Name: name, Value: content}
		if !x.Valid() {
			return nil, fmt.Errorf("xattr %q of %d bytes is out of range", shortened(name), len(value))
		}
		values[name] = x.Value
	}
	if label, ok := records[keySELinux]; ok && values[nameSELinux] == nil {
		values[nameSELinux] = append([]byte(label), 0)
	}
	for key, name := range map[string]string{keyACLAccess: nameACLAccess, keyACLDefault: nameACLDefault} {
		text, ok := records[key]
		if !ok || values[name] != nil {
			continue
		}
		value, err := parseACL(text, name == nameACLAccess)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		if value != nil {
			values[name] = value
		}
	}
	var list []image.Xattr
	for name, value := range values {
		list = append(list, image.Xattr{Name: name, Value: value})
	}
	slices.SortFunc(list, func(a, b image.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}
