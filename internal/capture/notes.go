package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/store"
)

// notes are what a capture keeps for the next one: the stamps of all entries and the digests of all trees. They can be
// deleted at any time; the next capture then reads everything. Notes never change. The notes of the next capture share
// the parts that are still valid.
//
// The file is used only on this machine and has no page in docs/formats. It has, with numbers in little endian:
//
//   - a magic number with the number of the format
//   - a header of fixed size
//   - records of fixed size of directories, in preorder
//   - records of fixed size of their names, in the order of the listing
//   - the names
//   - the hard-link groups
//   - a CRC-32C of all that
type notes struct {
	fsid      uint64
	rootIno   uint64
	digest    image.Digest // of the version
	linkBytes uint64       // of the files with several names
	root      *dirNote
	links     map[fileID]linkNote
}

// dirNote is the note of a directory.
type dirNote struct {
	start   int64 // start of the capture that listed the names, in Unix nanoseconds
	tree    image.Digest
	bytes   uint64 // of its regular files that are in no group
	entries []note // in the order of the listing
	all     totals // of it and everything below
}

type totals struct{ names, bytes, linked, mounts uint64 } // linked: names of files with several names

type note struct {
	name  string
	stamp stamp
	child *dirNote
}

type linkNote struct {
	first string
	count uint32
}

// linked reports whether s is the stamp of a file with several names.
func (s *stamp) linked() bool { return !s.isDir() && s.nlink > 1 }

// reliableBefore returns the time before which every change shows in the stamps.
func (d *dirNote) reliableBefore() time.Time { return time.Unix(0, d.start).Add(-clockGrain) }

// count sets d.all from the totals of the directories in d.
func (d *dirNote) count() {
	d.all = totals{names: uint64(len(d.entries)), bytes: d.bytes}
	for i := range d.entries {
		e := &d.entries[i]
		if e.stamp.linked() {
			d.all.linked++
		}
		if e.stamp.flags&flagMount != 0 {
			d.all.mounts++
		}
		if e.child != nil {
			d.all.names += e.child.all.names
			d.all.bytes += e.child.all.bytes
			d.all.linked += e.child.all.linked
			d.all.mounts += e.child.all.mounts
		}
	}
}

// mountPoints appends the mount points in d, which is at path.
func (d *dirNote) mountPoints(path string, list []string) []string {
	if d.all.mounts == 0 {
		return list
	}
	for i := range d.entries {
		e := &d.entries[i]
		at := image.JoinPath(path, e.name)
		if e.stamp.flags&flagMount != 0 {
			list = append(list, at)
		}
		if e.child != nil {
			list = e.child.mountPoints(at, list)
		}
	}
	return list
}

func (n *notes) files() uint64 { return n.root.all.names }
func (n *notes) bytes() uint64 { return n.root.all.bytes + n.linkBytes }

const (
	notesMagic = "dim capture 2\n"
	stampSize  = 76
	noteSize   = stampSize + 1 + 4
	dirSize    = 4 + 32 + 8 + 8
	headSize   = len(notesMagic) + 8 + 8 + 32 + 8 + 4*4
)

func (o *Options) notesPath() string {
	master := image.Sum([]byte(o.Dir))
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%x.notes", o.Image, master[:6]))
}

// loadNotes returns the notes of the previous capture, or nil if there are no usable ones.
func loadNotes(s *store.Store, o *Options) *notes {
	if o.CacheDir == "" || o.Reread {
		return nil
	}
	b, err := os.ReadFile(o.notesPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var n *notes
	if err == nil {
		n, err = parseNotes(b)
	}
	if err != nil {
		o.Log.Warn("notes of the previous capture cannot be used", "file", o.notesPath(), "error", err)
		return nil
	}
	if !hasVersion(s, o.Image, n.digest) {
		return nil
	}
	return n
}

// hasVersion reports whether an image has a version with this digest. If not, its objects may have been removed.
func hasVersion(s *store.Store, name string, d image.Digest) bool {
	newest, err := s.Resolve(image.Ref{Image: name})
	if err != nil || newest.Digest == d {
		return err == nil
	}
	versions, err := s.Versions(name)
	if err != nil {
		return false
	}
	for _, v := range versions {
		if v.Digest == d {
			return true
		}
	}
	return false
}

func (o *Options) saveNotes(n *notes) error {
	if o.CacheDir == "" {
		return nil
	}
	if err := durable.RemoveTemps(o.CacheDir); err != nil {
		return err
	}
	return durable.WriteFile(o.notesPath(), n.encode(), 0o600)
}

// notes returns the notes of this scan. All trees must be built.
func (c *scan) notes(root *dir, digest image.Digest) *notes {
	n := &notes{fsid: c.fsid, rootIno: root.stamp.ino, digest: digest, root: root.noted, links: map[fileID]linkNote{}}
	if c.partial {
		n.links, n.linkBytes = c.old.links, c.old.linkBytes
		return n
	}
	for id, g := range c.groups {
		if g.count > 0 {
			n.links[id] = linkNote{g.first, g.count}
			n.linkBytes += g.size()
		}
	}
	return n
}

// noteOf returns the note of d, whose tree is built. It is the old one if that is still valid.
func (c *scan) noteOf(d *dir) *dirNote {
	differs := func(child *dir) bool { return !child.known || child.noted != child.note }
	if d.same && !slices.ContainsFunc(d.children, differs) {
		return d.note
	}
	n := &dirNote{start: c.start.UnixNano(), tree: d.tree, bytes: d.bytes}
	if d.unlisted {
		n.start = d.note.start
	}
	if d.same {
		n.entries = slices.Clone(d.note.entries)
		for _, child := range d.children {
			n.entries[child.at].stamp, n.entries[child.at].child = child.stamp, child.noted
		}
	} else {
		n.entries = d.noteItems()
	}
	n.count()
	return n
}

func (d *dir) noteItems() []note {
	list := make([]note, 0, len(d.items))
	for i := range d.items {
		it := &d.items[i]
		if it.gone || it.child != nil && it.child.gone {
			continue
		}
		e := note{name: it.name, stamp: it.stamp}
		switch {
		case it.child != nil:
			e.stamp, e.child = it.child.stamp, it.child.noted
		case it.note >= 0:
			e.child = d.note.entries[it.note].child
		}
		list = append(list, e)
	}
	return list
}

// preorder appends d and all directories below it, parents first.
func (d *dirNote) preorder(list []*dirNote) []*dirNote {
	list = append(list, d)
	for i := range d.entries {
		if c := d.entries[i].child; c != nil {
			list = c.preorder(list)
		}
	}
	return list
}

func (n *notes) encode() []byte {
	le := binary.LittleEndian
	dirs := n.root.preorder(nil)
	index := make(map[*dirNote]uint32, len(dirs)) // 0: no child, because the root is no child of another
	entries, names := 0, 0
	for i, d := range dirs {
		index[d] = uint32(i)
		entries += len(d.entries)
		for i := range d.entries {
			names += len(d.entries[i].name)
		}
	}
	b := make([]byte, 0, headSize+dirSize*len(dirs)+noteSize*entries+names+64*len(n.links)+4)
	b = append(b, notesMagic...)
	b = le.AppendUint64(b, n.fsid)
	b = le.AppendUint64(b, n.rootIno)
	b = append(b, n.digest[:]...)
	b = le.AppendUint64(b, n.linkBytes)
	for _, count := range []int{len(dirs), entries, names, len(n.links)} {
		b = le.AppendUint32(b, uint32(count))
	}
	for _, d := range dirs {
		b = le.AppendUint32(b, uint32(len(d.entries)))
		b = append(b, d.tree[:]...)
		b = le.AppendUint64(b, d.bytes)
		b = le.AppendUint64(b, uint64(d.start))
	}
	for _, d := range dirs {
		for i := range d.entries {
			e := &d.entries[i]
			b = e.stamp.append(b)
			b = append(b, byte(len(e.name)))
			b = le.AppendUint32(b, index[e.child])
		}
	}
	for _, d := range dirs {
		for i := range d.entries {
			b = append(b, d.entries[i].name...)
		}
	}
	return appendSum(n.encodeLinks(b))
}

func (n *notes) encodeLinks(b []byte) []byte {
	le := binary.LittleEndian
	for id, l := range n.links {
		b = le.AppendUint32(b, id.devMajor)
		b = le.AppendUint32(b, id.devMinor)
		b = le.AppendUint64(b, id.ino)
		b = le.AppendUint32(b, l.count)
		b = le.AppendUint32(b, uint32(len(l.first)))
		b = append(b, l.first...)
	}
	return b
}

func appendSum(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func (s *stamp) append(b []byte) []byte {
	le := binary.LittleEndian
	for _, v := range [...]uint64{s.ino, s.size, uint64(s.ctimeSec), uint64(s.mtimeSec)} {
		b = le.AppendUint64(b, v)
	}
	for _, v := range [...]uint32{s.ctimeNsec, s.mtimeNsec, s.mode, s.uid, s.gid, s.nlink,
		s.rdevMajor, s.rdevMinor, s.devMajor, s.devMinor, s.flags} {
		b = le.AppendUint32(b, v)
	}
	return b
}

func (s *stamp) parse(b []byte) {
	le := binary.LittleEndian
	_ = b[stampSize-1]
	s.ino, s.size = le.Uint64(b), le.Uint64(b[8:])
	s.ctimeSec, s.mtimeSec = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))
	s.ctimeNsec, s.mtimeNsec = le.Uint32(b[32:]), le.Uint32(b[36:])
	s.mode, s.uid, s.gid, s.nlink = le.Uint32(b[40:]), le.Uint32(b[44:]), le.Uint32(b[48:]), le.Uint32(b[52:])
	s.rdevMajor, s.rdevMinor = le.Uint32(b[56:]), le.Uint32(b[60:])
	s.devMajor, s.devMinor, s.flags = le.Uint32(b[64:]), le.Uint32(b[68:]), le.Uint32(b[72:])
}

var errBadNotes = errors.New("damaged")

// parseNotes checks the structure strictly. It cannot detect wrong notes from a process that may write the file.
func parseNotes(b []byte) (*notes, error) {
	le := binary.LittleEndian
	if len(b) < headSize+4 || string(b[:len(notesMagic)]) != notesMagic {
		return nil, errors.New("not notes of this format")
	}
	sum := le.Uint32(b[len(b)-4:])
	b = b[:len(b)-4]
	if crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) != sum {
		return nil, errBadNotes
	}
	h := b[len(notesMagic):headSize]
	n := &notes{
		fsid: le.Uint64(h), rootIno: le.Uint64(h[8:]), digest: image.Digest(h[16:48]), linkBytes: le.Uint64(h[48:]),
	}
	dirs, entries := uint64(le.Uint32(h[56:])), uint64(le.Uint32(h[60:]))
	names, links := uint64(le.Uint32(h[64:])), le.Uint32(h[68:])
	b = b[headSize:]
	if dirs == 0 || dirs*dirSize+entries*noteSize+names > uint64(len(b)) {
		return nil, errBadNotes
	}
	dirBytes, b := b[:dirs*dirSize], b[dirs*dirSize:]
	entryBytes, b := b[:entries*noteSize], b[entries*noteSize:]
	nameBytes, b := string(b[:names]), b[names:]
	list, err := parseDirs(dirBytes, make([]note, entries))
	if err != nil {
		return nil, err
	}
	if err := parseEntries(list, entryBytes, nameBytes); err != nil {
		return nil, err
	}
	n.root = &list[0]
	return n, n.parseLinks(b, links)
}

// parseDirs divides the entries among the directories.
func parseDirs(b []byte, entries []note) ([]dirNote, error) {
	le := binary.LittleEndian
	dirs := make([]dirNote, len(b)/dirSize)
	for i := range dirs {
		r := b[i*dirSize:]
		count := int64(le.Uint32(r))
		if count > int64(len(entries)) {
			return nil, errBadNotes
		}
		dirs[i] = dirNote{
			tree: image.Digest(r[4:36]), bytes: le.Uint64(r[36:]), start: int64(le.Uint64(r[44:])),
			entries: entries[:count:count],
		}
		entries = entries[count:]
	}
	if len(entries) > 0 {
		return nil, errBadNotes
	}
	return dirs, nil
}

// parseEntries sets the entries of dirs. The directories form a tree: each but the first is an entry of an earlier one.
func parseEntries(dirs []dirNote, b []byte, names string) error {
	taken := make([]bool, len(dirs))
	for i := range dirs {
		for n := range dirs[i].entries {
			e := &dirs[i].entries[n]
			e.stamp.parse(b)
			size, child := int(b[stampSize]), int64(binary.LittleEndian.Uint32(b[stampSize+1:]))
			b = b[noteSize:]
			if size > len(names) {
				return errBadNotes
			}
			e.name, names = names[:size], names[size:]
			if child == 0 {
				continue
			}
			if child <= int64(i) || child >= int64(len(dirs)) || taken[child] {
				return errBadNotes
			}
			e.child, taken[child] = &dirs[child], true
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		dirs[i].count()
	}
	if names != "" {
		return errBadNotes
	}
	return nil
}

func (n *notes) parseLinks(b []byte, count uint32) error {
	const size = 24
	le := binary.LittleEndian
	if uint64(count)*size > uint64(len(b)) {
		return errBadNotes
	}
	n.links = make(map[fileID]linkNote, count)
	for range count {
		if len(b) < size || uint64(le.Uint32(b[20:])) > min(uint64(len(b)-size), math.MaxInt32) {
			return errBadNotes
		}
		end := size + int(le.Uint32(b[20:]))
		n.links[fileID{le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:])}] = linkNote{string(b[size:end]),
			le.Uint32(b[16:])}
		b = b[end:]
	}
	if len(b) != 0 {
		return errBadNotes
	}
	return nil
}
