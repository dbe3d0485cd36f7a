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

// remoteNotes are the notes of a capture of a master on another machine. They can be deleted at any time; the next
// capture then reads everything. The file has a line with the fields below in JSON, then the records as the other
// machine has printed them, each with a final NUL.
type remoteNotes struct {
	Format  int          `json:"format"`
	Digest  image.Digest `json:"digest"`  // of the version
	Started int64        `json:"started"` // in seconds, by the clock of the other machine
	Disk    string       `json:"disk"`
	Sum     uint32       `json:"sum"` // CRC-32C of the records

	records      []byte
	entries      map[string]remoteNote
	files, bytes uint64
}

type remoteNote struct {
	stamp string
	entry *image.Entry
}

const remoteNotesFormat = 1

func (o *Options) remoteNotesPath() string {
	return filepath.Join(o.CacheDir, fmt.Sprintf("capture-%s-%s.far", o.Image, image.Sum([]byte(o.Master)).Short()))
}

// loadRemoteNotes returns the notes of the previous capture with the entries of its version. Without usable notes they
// are empty.
func (o *Options) loadRemoteNotes(ctx context.Context, s *store.Store) *remoteNotes {
	none := &remoteNotes{}
	if o.CacheDir == "" || o.Reread {
		return none
	}
	b, err := os.ReadFile(o.remoteNotesPath())
	if errors.Is(err, fs.ErrNotExist) {
		return none
	}
	var n *remoteNotes
	if err == nil {
		n, err = parseRemoteNotes(b)
	}
	if err == nil && hasVersion(s, o.Image, n.Digest) {
		if err = n.addEntries(ctx, s); err == nil {
			return n
		}
	}
	if err != nil {
		o.Log.Warn("notes of the previous capture cannot be used", "file", o.remoteNotesPath(), "error", err)
	}
	return none
}

func parseRemoteNotes(b []byte) (*remoteNotes, error) {
	head, records, ok := bytes.Cut(b, []byte("\n"))
	n := &remoteNotes{}
	if err := json.Unmarshal(head, n); err != nil || !ok || n.Format != remoteNotesFormat {
		return nil, errors.New("not notes of this format")
	}
	if crc32.Checksum(records, crc32.MakeTable(crc32.Castagnoli)) != n.Sum {
		return nil, errBadNotes
	}
	n.entries = map[string]remoteNote{}
	for text := range strings.SplitSeq(strings.TrimSuffix(string(records), "\x00"), "\x00") {
		if text == "" {
			continue
		}
		r, err := remote.ParseRecord(text)
		if err != nil {
			return nil, err
		}
		n.entries[r.Path] = remoteNote{stamp: r.Stamp}
	}
	return n, nil
}

// addEntries adds the entries of the version. It drops notes without an entry or with one of another type.
func (n *remoteNotes) addEntries(ctx context.Context, s *store.Store) error {
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

// kindOf returns the letter of a type in the output of find.
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

// notes returns the notes for the next capture.
func (c *remoteCapture) notes(digest image.Digest) *remoteNotes {
	n := &remoteNotes{Format: remoteNotesFormat, Digest: digest, Started: c.list.Started, Disk: c.list.Disk}
	for _, r := range c.kept {
		if !c.gone[r.Path] && !c.unstable[r.Path] {
			n.records = append(append(n.records, r.Text...), 0)
		}
	}
	n.Sum = crc32.Checksum(n.records, crc32.MakeTable(crc32.Castagnoli))
	return n
}

func (o *Options) saveRemoteNotes(n *remoteNotes) error {
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
	return durable.WriteFile(o.remoteNotesPath(), append(append(head, '\n'), n.records...), 0o600)
}
