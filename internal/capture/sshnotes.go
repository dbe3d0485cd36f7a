package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"dim/internal/capture/remote"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
)

// farNotes is what the capture of a master on another machine leaves for the next. They can be thrown away at any time: then all is
// read. The file has a line with what is below in JSON, and the records as the other machine gave them, each ending in NUL.
type farNotes struct {
	Format  int          `json:"format"`
	Digest  image.Digest `json:"digest"`  // of the version
	Started int64        `json:"started"` // by the other machine's clock
	Disk    string       `json:"disk"`
	Sum     uint32       `json:"sum"` // CRC-32C of the records

	records      []byte
	entries      map[string]farNote
	files, bytes uint64
}

type farNote struct {
	stamp string
	entry *image.Entry
}

const farFormat = 1

func (o *Options) farNotesPath() string {
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%s.far", o.Image, image.Sum([]byte(o.Master)).Short()))
}

// loadFarNotes returns what the capture before left, with the entries of its version; nothing if any of that is not there.
func (o *Options) loadFarNotes(ctx context.Context, s *store.Store) *farNotes {
	none := &farNotes{}
	if o.CacheDir == "" {
		return none
	}
	b, err := os.ReadFile(o.farNotesPath())
	if errors.Is(err, fs.ErrNotExist) {
		return none
	}
	var n *farNotes
	if err == nil {
		n, err = parseFarNotes(b)
	}
	if err == nil && hasVersion(s, o.Image, n.Digest) {
		if err = n.join(ctx, s); err == nil {
			return n
		}
	}
	if err != nil {
		o.Log.Warn("notes of the previous capture cannot be used", "path", o.farNotesPath(), "err", err)
	}
	return none
}

func parseFarNotes(b []byte) (*farNotes, error) {
	head, records, ok := bytes.Cut(b, []byte("\n"))
	n := &farNotes{}
	if err := json.Unmarshal(head, n); err != nil || !ok || n.Format != farFormat {
		return nil, errors.New("not notes of this format")
	}
	if crc32.Checksum(records, crc32.MakeTable(crc32.Castagnoli)) != n.Sum {
		return nil, errBadNotes
	}
	n.entries = map[string]farNote{}
	for text := range strings.SplitSeq(strings.TrimSuffix(string(records), "\x00"), "\x00") {
		if text == "" {
			continue
		}
		r, err := remote.ParseRecord(text)
		if err != nil {
			return nil, err
		}
		n.entries[r.Path] = farNote{stamp: r.Stamp}
	}
	return n, nil
}

// join finds the entries of what is noted. What has none, or one of another kind, is forgotten.
func (n *farNotes) join(ctx context.Context, s *store.Store) error {
	root, err := s.Root(n.Digest)
	if err != nil {
		return err
	}
	err = treediff.Walk(ctx, s.Tree, &root, func(path string, e *image.Entry) error {
		n.files++
		if e.Link == "" || e.Link == path {
			n.bytes += e.Size
		}
		if note, ok := n.entries[path]; ok && strings.HasPrefix(note.stamp, kindOf(e.Type)+" ") {
			note.entry = e
			n.entries[path] = note
		}
		return nil
	})
	for path, note := range n.entries {
		if note.entry == nil {
			delete(n.entries, path)
		}
	}
	return err
}

// kindOf returns the letter that find has for a type.
func kindOf(t image.Type) string {
	switch t {
	case image.Regular:
		return "f"
	case image.Directory:
		return "d"
	case image.Symlink:
		return "l"
	case image.CharDevice:
		return "c"
	case image.BlockDevice:
		return "b"
	case image.FIFO:
		return "p"
	}
	return ""
}

// notes returns what this look leaves for the next.
func (c *far) notes(digest image.Digest) *farNotes {
	n := &farNotes{Format: farFormat, Digest: digest, Started: c.list.Started, Disk: c.list.Disk}
	for _, r := range c.kept {
		if !c.gone[r.Path] && !c.unsure[r.Path] {
			n.records = append(append(n.records, r.Text...), 0)
		}
	}
	n.Sum = crc32.Checksum(n.records, crc32.MakeTable(crc32.Castagnoli))
	return n
}

func (o *Options) saveFarNotes(n *farNotes) error {
	if o.CacheDir == "" {
		return nil
	}
	head, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := durable.RemoveTemps(o.CacheDir); err != nil {
		return err
	}
	return durable.WriteFile(o.farNotesPath(), append(append(head, '\n'), n.records...), 0o600)
}
