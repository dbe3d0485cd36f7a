package pkgdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// rpmDirs are the directories where rpm keeps its database, the newer one first. Some are links to another. The last is
// that of systems that are updated as a whole (ostree).
var rpmDirs = []string{"usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"}

// rpmForms are the forms of rpm's database, the newest one first: the name of its file in one of the directories, and a
// function that calls yield with the header of every package.
var rpmForms = []struct {
	file string
	walk func(file []byte, yield func(header []byte) error) error
}{
	{"rpmdb.sqlite", walkSqlite},
	{"Packages.db", walkNdb},
	{"Packages", walkBerkeley},
}

// loadRpm reads the first database of the newest form. What is beside it is left over.
func (d *Database) loadRpm() {
	for _, form := range rpmForms {
		for _, dir := range rpmDirs {
			name := dir + "/" + form.file
			if info, err := fs.Stat(d.root, name); err != nil || !info.Mode().IsRegular() {
				continue
			}
			file := d.read(name)
			if file == nil {
				return // d.read has recorded why
			}
			if log, err := fs.Stat(d.root, name+"-wal"); err == nil && log.Size() > 0 {
				d.addUnread(name, errors.New("rpm was writing to it: its write-ahead log is not read"))
			}
			if err := form.walk(file, d.addHeader); err != nil {
				d.addUnread(name, err)
			}
			d.addFound("rpm")
			return
		}
	}
}

func (d *Database) addHeader(header []byte) error {
	p, files, ok := parseHeader(header)
	if !ok {
		return nil
	}
	return d.add("rpm", p, files)
}

// Tags of a header, and the types of their values (rpm's lib/rpmtag.h).
const (
	tagName       = 1000
	tagVersion    = 1001
	tagRelease    = 1002
	tagEpoch      = 1003
	tagArch       = 1022
	tagDirIndexes = 1116
	tagBasenames  = 1117
	tagDirnames   = 1118

	typeInt32       = 4
	typeString      = 6
	typeStringArray = 8

	headerEntry = 16
	maxValues   = 1 << 20
	maxPath     = 4096
)

// header is a package's header. In the database it is preceded by the number of entries and the length of the data.
type header struct {
	entries []byte
	data    []byte
}

// parseHeader returns a package and its files. Keys, which rpm stores as packages (gpg-pubkey), are not packages.
func parseHeader(b []byte) (p Package, files []string, ok bool) {
	if len(b) < 8 {
		return p, nil, false
	}
	n, size := uint64(binary.BigEndian.Uint32(b)), uint64(binary.BigEndian.Uint32(b[4:]))
	if b = b[8:]; n*headerEntry+size > uint64(len(b)) {
		return p, nil, false
	}
	h := header{entries: b[:n*headerEntry], data: b[n*headerEntry : n*headerEntry+size]}
	p = Package{Name: h.text(tagName), Arch: h.text(tagArch), Version: h.text(tagVersion) + "-" + h.text(tagRelease)}
	if epoch := h.numbers(tagEpoch); len(epoch) > 0 && epoch[0] > 0 {
		p.Version = fmt.Sprintf("%d:%s", epoch[0], p.Version)
	}
	if p.Name == "" || p.Name == "gpg-pubkey" {
		return p, nil, false
	}
	names, dirs, index := h.texts(tagBasenames), h.texts(tagDirnames), h.numbers(tagDirIndexes)
	for i := range min(len(names), len(index)) {
		if at := index[i]; uint64(at) < uint64(len(dirs)) && len(dirs[at])+len(names[i]) <= maxPath {
			files = append(files, strings.TrimPrefix(dirs[at]+names[i], "/"))
		}
	}
	return p, files, true
}

// value returns the type and count of a tag's value, and the data from its first byte on.
func (h header) value(tag uint32) (kind uint32, count int, b []byte) {
	for e := h.entries; len(e) >= headerEntry; e = e[headerEntry:] {
		if binary.BigEndian.Uint32(e) != tag {
			continue
		}
		off, n := binary.BigEndian.Uint32(e[8:]), binary.BigEndian.Uint32(e[12:])
		if uint64(off) <= uint64(len(h.data)) && n <= maxValues {
			return binary.BigEndian.Uint32(e[4:]), int(n), h.data[off:]
		}
	}
	return 0, 0, nil
}

func (h header) texts(tag uint32) []string {
	kind, count, b := h.value(tag)
	if kind != typeString && kind != typeStringArray {
		return nil
	}
	var list []string
	for range count {
		text, rest, ok := bytes.Cut(b, []byte{0})
		if !ok {
			break
		}
		list = append(list, string(text))
		b = rest
	}
	return list
}

func (h header) text(tag uint32) string {
	if list := h.texts(tag); len(list) > 0 {
		return list[0]
	}
	return ""
}

func (h header) numbers(tag uint32) []uint32 {
	kind, count, b := h.value(tag)
	if kind != typeInt32 {
		return nil
	}
	var list []uint32
	for range min(count, len(b)/4) {
		list = append(list, binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	return list
}
