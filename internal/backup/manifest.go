package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"time"

	"dim/internal/image"
)

// Info is the description of a backup, backup.json.
type Info struct {
	Format   int       `json:"format"`
	Cluster  string    `json:"cluster"`
	Server   string    `json:"server"`
	Heads    []string  `json:"heads"`   // the other heads of the cluster, if the server is a head
	Program  string    `json:"program"` // version of the program that made it
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Complete bool      `json:"complete"` // it has all that was asked for
	Problems []string  `json:"problems"` // what it lacks, and why
	LeftOut  []string  `json:"left_out"` // parts that were not asked for: "layers", "store"
	Secrets  bool      `json:"secrets"`  // it has private keys
	Versions []string  `json:"versions"` // of images, in the store of the backup
	Layers   []Layer   `json:"layers"`
	Entries  uint64    `json:"entries"` // of the manifest
	Files    uint64    `json:"files"`   // regular files, each once
	Bytes    uint64    `json:"bytes"`   // the sum of their sizes
	Written  uint64    `json:"written"` // of these, what was written; the rest is shared with the backup before

	Manifest image.Digest `json:"manifest"` // SHA-256 of the manifest
}

// Layer is what a backup has of one replica.
type Layer struct {
	Node    string    `json:"node"`
	Image   string    `json:"image"`
	Version int       `json:"version,omitempty"` // that the layer is over; 0: not known
	Digest  string    `json:"digest,omitempty"`
	Moment  time.Time `json:"moment"`       // it is as it was then
	Held    float64   `json:"held_seconds"` // how long calls of the node waited
	Entries uint64    `json:"entries"`
	Bytes   uint64    `json:"bytes"`
}

// format is the number of the format, see docs/formats/backup.md.
const format = 1

// infoMax bounds the size of a description in bytes.
const infoMax = 256 << 20

func (i *Info) encode() ([]byte, error) {
	for _, list := range []*[]string{&i.Heads, &i.Problems, &i.LeftOut, &i.Versions} {
		if *list == nil {
			*list = []string{}
		}
	}
	if i.Layers == nil {
		i.Layers = []Layer{}
	}
	b, err := json.MarshalIndent(i, "", "  ")
	return append(b, '\n'), err
}

func parseInfo(b []byte) (*Info, error) {
	i := &Info{}
	if err := json.Unmarshal(b, i); err != nil {
		return nil, fmt.Errorf("%s: %v", infoName, err)
	}
	switch {
	case i.Format > format:
		return nil, fmt.Errorf("%s: format %d is not known, this program reads format %d: use a newer one", infoName,
			i.Format, format)
	case i.Format != format:
		return nil, fmt.Errorf("%s: it is not the description of a backup", infoName)
	}
	return i, nil
}

// firstLine begins a manifest. bsdtar and mtree(8) recognize it.
const firstLine = "#mtree\n"

// lineMax bounds a line in bytes: a path, a target, and 64 KB of extended attributes several times.
const lineMax = 16 << 20

// recorder writes the manifest of what goes to a sink.
type recorder struct {
	to   io.Writer
	hash hash.Hash
	sink sink
	info *Info
}

func newRecorder(to io.Writer, s sink, info *Info) (*recorder, error) {
	r := &recorder{hash: sha256.New(), sink: s, info: info}
	r.to = io.MultiWriter(to, r.hash)
	_, err := io.WriteString(r.to, firstLine)
	return r, err
}

// add gives an entry to the sink, which sets its digest, and then to the manifest.
func (r *recorder) add(e *entry, c content) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	written, err := r.sink.add(e, c)
	if err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	r.info.Entries++
	if e.kind == fileKind && e.hardLink == "" {
		r.info.Files++
		r.info.Bytes += e.size
		r.info.Written += written
	}
	_, err = r.to.Write(e.line())
	return err
}

// readManifest calls each with every entry of a manifest, in order. It returns the digest of what it has read.
func readManifest(from io.Reader, each func(*entry) error) (image.Digest, error) {
	h := sha256.New()
	r := bufio.NewReaderSize(io.TeeReader(from, h), 256<<10)
	first := make([]byte, len(firstLine))
	if _, err := io.ReadFull(r, first); err != nil || string(first) != firstLine {
		return image.Digest{}, errors.New("manifest: it does not begin as one")
	}
	for n := 2; ; n++ {
		line, err := readLine(r)
		if err == io.EOF && len(line) == 0 {
			return image.Digest(h.Sum(nil)), nil
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		var e *entry
		if err == nil {
			e, err = parseLine(string(line))
		}
		if err == nil {
			err = each(e)
		}
		if err != nil {
			return image.Digest{}, fmt.Errorf("manifest, line %d: %w", n, err)
		}
	}
}

// readLine reads a line of bounded length.
func readLine(r *bufio.Reader) ([]byte, error) {
	part, err := r.ReadSlice('\n')
	line := slices.Clone(part)
	for errors.Is(err, bufio.ErrBufferFull) {
		if len(line) > lineMax {
			return nil, errors.New("it is too long")
		}
		part, err = r.ReadSlice('\n')
		line = append(line, part...)
	}
	return bytes.Clone(line), err
}
