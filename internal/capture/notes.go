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
	"time"

	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/store"
)

// notes is what a capture leaves for the next: the stamps of everything it met, and the trees it made. They can be thrown away at any
// time: the next capture then reads everything.
//
// The file is this machine's own business and has no page in docs/formats: a magic number with the format's number, a fixed
// header, fixed-size records of directories in preorder and of their names in the order of the listing, the names, the
// hard-link groups, a CRC-32C of it all. Numbers are little endian.
type notes struct {
	start   time.Time
	fsid    uint64
	rootIno uint64
	digest  image.Digest // of the version
	files   uint64
	bytes   uint64
	dirs    []dirNote // the root first
	entries []note
	links   map[fileID]linkNote
}

type dirNote struct {
	first, n uint32 // its entries
	tree     image.Digest
	bytes    uint64
}

type note struct {
	name  string
	stamp stamp
	child uint32 // its place in notes.dirs; 0: none
}

type linkNote struct {
	first string
	count uint32
}

// of returns d's entries.
func (n *notes) of(d *dirNote) []note { return n.entries[d.first : d.first+d.n] }

const (
	notesMagic = "dim capture 1\n"
	stampSize  = 76
	noteSize   = stampSize + 1 + 4
	dirSize    = 4 + 32 + 8
	headSize   = len(notesMagic) + 8 + 4 + 8 + 8 + 32 + 8 + 8 + 4*4
)

func (o *Options) notesPath() string {
	master := image.Sum([]byte(o.Dir))
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%x.notes", o.Image, master[:6]))
}

// loadNotes returns the notes of the previous capture, or nil when there are none that can be used.
func loadNotes(s *store.Store, o *Options) *notes {
	if o.CacheDir == "" {
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
		o.Log.Warn("notes of the previous capture cannot be used", "path", o.notesPath(), "err", err)
		return nil
	}
	if !hasVersion(s, o.Image, n.digest) {
		return nil
	}
	return n
}

// hasVersion reports whether an image has a version with this digest: only then is all that it leads to in the store.
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

func (c *scan) saveNotes(root *dir, digest image.Digest) error {
	if c.o.CacheDir == "" {
		return nil
	}
	if err := durable.RemoveTemps(c.o.CacheDir); err != nil {
		return err
	}
	return durable.WriteFile(c.o.notesPath(), c.notes(root, digest).encode(), 0o600)
}

// notes returns the notes of this scan.
func (c *scan) notes(root *dir, digest image.Digest) *notes {
	n := &notes{start: c.start, fsid: c.fsid, rootIno: root.stamp.ino, digest: digest, files: c.files, bytes: c.bytes,
		links: map[fileID]linkNote{}}
	order := root.preorder(nil)
	index := make(map[*dir]uint32, len(order))
	for i, d := range order {
		index[d] = uint32(i)
	}
	for _, d := range order {
		first := len(n.entries)
		n.noteEntries(c, d, index)
		n.dirs = append(n.dirs, dirNote{uint32(first), uint32(len(n.entries) - first), d.tree, d.bytes})
	}
	for id, g := range c.groups {
		if g.count > 0 {
			n.links[id] = linkNote{g.first, g.count}
		}
	}
	return n
}

func (n *notes) noteEntries(c *scan, d *dir, index map[*dir]uint32) {
	if d.same {
		first := len(n.entries)
		n.entries = append(n.entries, c.old.of(d.note)...)
		for _, child := range d.children {
			n.entries[first+child.at].child = index[child]
		}
		return
	}
	for i := range d.items {
		it := &d.items[i]
		if it.gone || it.child != nil && it.child.gone {
			continue
		}
		e := note{name: it.name, stamp: it.stamp}
		if it.child != nil {
			e.stamp, e.child = it.child.stamp, index[it.child]
		}
		n.entries = append(n.entries, e)
	}
}

func (n *notes) encode() []byte {
	le := binary.LittleEndian
	names := 0
	for i := range n.entries {
		names += len(n.entries[i].name)
	}
	b := make([]byte, 0, headSize+dirSize*len(n.dirs)+noteSize*len(n.entries)+names+64*len(n.links)+4)
	b = append(b, notesMagic...)
	b = le.AppendUint64(b, uint64(n.start.Unix()))
	b = le.AppendUint32(b, uint32(n.start.Nanosecond()))
	b = le.AppendUint64(b, n.fsid)
	b = le.AppendUint64(b, n.rootIno)
	b = append(b, n.digest[:]...)
	b = le.AppendUint64(b, n.files)
	b = le.AppendUint64(b, n.bytes)
	for _, count := range []int{len(n.dirs), len(n.entries), names, len(n.links)} {
		b = le.AppendUint32(b, uint32(count))
	}
	for i := range n.dirs {
		d := &n.dirs[i]
		b = le.AppendUint32(b, d.n)
		b = append(b, d.tree[:]...)
		b = le.AppendUint64(b, d.bytes)
	}
	for i := range n.entries {
		e := &n.entries[i]
		b = e.stamp.append(b)
		b = append(b, byte(len(e.name)))
		b = le.AppendUint32(b, e.child)
	}
	for i := range n.entries {
		b = append(b, n.entries[i].name...)
	}
	for id, l := range n.links {
		b = le.AppendUint32(b, id.devMajor)
		b = le.AppendUint32(b, id.devMinor)
		b = le.AppendUint64(b, id.ino)
		b = le.AppendUint32(b, l.count)
		b = le.AppendUint32(b, uint32(len(l.first)))
		b = append(b, l.first...)
	}
	return appendSum(b)
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

// parseNotes is strict about what could lead a capture astray; whoever can write the file can lie anyway.
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
	n := &notes{start: time.Unix(int64(le.Uint64(h)), int64(le.Uint32(h[8:]))), fsid: le.Uint64(h[12:]), rootIno: le.Uint64(h[20:]),
		digest: image.Digest(h[28:60]), files: le.Uint64(h[60:]), bytes: le.Uint64(h[68:])}
	dirs, entries, names, links := uint64(le.Uint32(h[76:])), uint64(le.Uint32(h[80:])), uint64(le.Uint32(h[84:])), le.Uint32(h[88:])
	b = b[headSize:]
	if dirs == 0 || dirs*dirSize+entries*noteSize+names > uint64(len(b)) {
		return nil, errBadNotes
	}
	dirBytes, b := b[:dirs*dirSize], b[dirs*dirSize:]
	entryBytes, b := b[:entries*noteSize], b[entries*noteSize:]
	nameBytes, b := string(b[:names]), b[names:]
	if err := n.parseDirs(dirBytes, entries); err != nil {
		return nil, err
	}
	if err := n.parseEntries(entryBytes, nameBytes); err != nil {
		return nil, err
	}
	return n, n.parseLinks(b, links)
}

func (n *notes) parseDirs(b []byte, entries uint64) error {
	n.dirs = make([]dirNote, len(b)/dirSize)
	first := uint64(0)
	for i := range n.dirs {
		d := b[i*dirSize:]
		count := binary.LittleEndian.Uint32(d)
		n.dirs[i] = dirNote{uint32(first), count, image.Digest(d[4:36]), binary.LittleEndian.Uint64(d[36:])}
		if first += uint64(count); first > entries {
			return errBadNotes
		}
	}
	if first != entries {
		return errBadNotes
	}
	return nil
}

func (n *notes) parseEntries(b []byte, names string) error {
	n.entries = make([]note, len(b)/noteSize)
	for i := range n.entries {
		e, r := &n.entries[i], b[i*noteSize:(i+1)*noteSize]
		e.stamp.parse(r)
		size := int(r[stampSize])
		if size > len(names) {
			return errBadNotes
		}
		e.name, names = names[:size], names[size:]
		e.child = binary.LittleEndian.Uint32(r[stampSize+1:])
		if int64(e.child) >= int64(len(n.dirs)) {
			return errBadNotes
		}
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
		n.links[fileID{le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:])}] = linkNote{string(b[size:end]), le.Uint32(b[16:])}
		b = b[end:]
	}
	if len(b) != 0 {
		return errBadNotes
	}
	return nil
}
