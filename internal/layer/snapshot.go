package layer

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// SnapshotInfo describes a snapshot.
type SnapshotInfo struct {
	// The versions that the layer was over while it was so, oldest first. Only Image, Number and Digest are set.
	Over []image.Version

	Why    string // "switch compute@1 compute@2", "reset", "restore"
	Files  uint64 // entries of all types
	Bytes  uint64 // room that its files take, shared or not
	Copied uint64 // of these, what could be shared neither with the layer nor with an earlier snapshot
}

// overMax bounds how many versions are noted of one snapshot: some file systems have 4,096 bytes for all attributes of
// a directory.
const overMax = 16

func overLine(v *image.Version) string { return fmt.Sprintf("%s %s\n", v.Ref(), v.Digest) }

// SnapshotInfo reads what the top directory e of a snapshot says of it. What is missing or makes no sense is left out.
func (e Entry) SnapshotInfo() SnapshotInfo {
	info := SnapshotInfo{Why: e.why()}
	size, _ := e.value(xattrSize)
	_, _ = fmt.Sscan(string(size), &info.Files, &info.Bytes, &info.Copied)
	over, _ := e.value(xattrOver)
	for line := range strings.Lines(string(over)) {
		ref, digest, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		r, err := image.ParseRef(ref)
		d, err2 := image.ParseDigest(digest)
		if ok && err == nil && err2 == nil {
			info.Over = append(info.Over, image.Version{Image: r.Image, Number: r.Number, Digest: d})
		}
	}
	return info
}

// SetSnapshotInfo writes info to the top directory e of a snapshot.
func (e Entry) SetSnapshotInfo(info *SnapshotInfo) error {
	over := ""
	for i := range info.Over {
		over += overLine(&info.Over[i])
	}
	for _, x := range []image.Xattr{
		{Name: xattrWhy, Value: []byte(info.Why)},
		{Name: xattrOver, Value: []byte(over)},
		{Name: xattrSize, Value: fmt.Appendf(nil, "%d %d %d", info.Files, info.Bytes, info.Copied)},
	} {
		if err := e.setXattr(x.Name, x.Value); err != nil {
			return err
		}
	}
	return nil
}

// AddOver notes that the snapshot whose top directory is e shows the layer as it was over another version too.
func (e Entry) AddOver(v *image.Version) error {
	line := overLine(v)
	have, err := e.value(xattrOver)
	if err != nil {
		return err
	}
	lines := slices.Collect(strings.Lines(string(have)))
	if len(lines) > 0 && lines[len(lines)-1] == line {
		return nil
	}
	lines = append(lines, line)
	return e.setXattr(xattrOver, []byte(strings.Join(lines[max(0, len(lines)-overMax):], "")))
}

// CopyOf reports whether the file e of a snapshot is a copy of the layer's file with the status st.
func (e Entry) CopyOf(st *unix.Stat_t) bool {
	return e.text(xattrOrigin, make([]byte, 64)) == string(origin(st))
}

// SetCopyOf notes that the file e of a snapshot is a copy of the layer's file with the status st.
func (e Entry) SetCopyOf(st *unix.Stat_t) error { return e.setXattr(xattrOrigin, origin(st)) }

// origin tells a state of a layer's file apart from every other: every change of the file changes its ctime.
func origin(st *unix.Stat_t) []byte {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 16), st.Ino)
	return binary.BigEndian.AppendUint64(v, uint64(st.Ctim.Nano()))
}
