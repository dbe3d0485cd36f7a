package remote

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dim/internal/capture/draft"
	"dim/internal/image"
)

// Record has the attributes of an entry.
type Record struct {
	Path     string // as draft.Clean returns it
	Kind     byte   // as find -printf %y prints it: f d l c b p s, or another
	Dev, Ino uint64
	Links    uint64
	Size     uint64
	Mode     uint32 // 07777
	UID, GID uint32
	Mtime    image.Time
	Changed  int64 // ctime, seconds
	// Stamp changes whenever anything that is captured of the entry changes. The ctime would be enough; the rest costs
	// nothing.
	Stamp string
	Text  string // the record as it was printed
}

// format is the argument of find -printf for a Record.
const format = `%y %i %D %n %s %m %U %G %T@ %C@ %p\0`

const fields = 11

// maxRecord is larger than any record: a path has at most 4095 bytes.
const maxRecord = 8 << 10

// ParseRecord parses a record without its final NUL.
func ParseRecord(text string) (Record, error) {
	r := Record{Text: text}
	f := strings.SplitN(text, " ", fields)
	if len(f) != fields || len(f[0]) != 1 {
		return r, fmt.Errorf("%q is no record of a listing", shortened(text))
	}
	r.Kind = f[0][0]
	p := numberParser{}
	r.Ino, r.Dev = p.number(f[1], 10, 64), p.number(f[2], 10, 64)
	r.Links, r.Size = p.number(f[3], 10, 64), p.number(f[4], 10, 63)
	r.Mode = uint32(p.number(f[5], 8, 12))
	r.UID, r.GID = uint32(p.number(f[6], 10, 32)), uint32(p.number(f[7], 10, 32))
	r.Mtime = p.time(f[8])
	r.Changed = p.time(f[9]).Sec
	if p.err != nil {
		return r, fmt.Errorf("record %q: %w", shortened(text), p.err)
	}
	var err error
	if r.Path, err = draft.Clean(f[10]); err != nil {
		return r, err
	}
	if r.Kind == 'd' { // size and number of links depend on the file system
		f[3], f[4] = "", ""
	}
	f[2] = "" // the number of a device may differ after a reboot
	r.Stamp = strings.Join(f[:fields-1], " ")
	return r, nil
}

// numberParser parses numbers and keeps an error.
type numberParser struct{ err error }

func (p *numberParser) number(s string, base, bits int) uint64 {
	n, err := strconv.ParseUint(s, base, bits)
	if err != nil {
		p.err = err
	}
	return n
}

// time parses seconds with a fraction of at least nine digits, or without a fraction.
func (p *numberParser) time(s string) image.Time {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		p.err = err
	}
	if fraction == "" {
		return image.Time{Sec: sec}
	}
	if len(fraction) < 9 {
		p.err = errors.New("a time without nanoseconds")
		return image.Time{}
	}
	nsec := p.number(fraction[:9], 10, 32)
	return image.Time{Sec: sec, Nsec: uint32(nsec)}
}

// readString reads a string that ends with a NUL. At the end of the input the error is io.EOF.
func readString(r *bufio.Reader) (string, error) {
	var b []byte
	for {
		part, err := r.ReadSlice(0)
		if b = append(b, part...); len(b) > maxRecord {
			return "", errors.New("a record without an end")
		}
		switch {
		case err == nil:
			return string(b[:len(b)-1]), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(b) > 0:
			return "", io.ErrUnexpectedEOF
		default:
			return "", err
		}
	}
}

// maxRecords is the largest number of names in a draft.
const maxRecords = 4 << 20

func readRecords(r *bufio.Reader) ([]Record, error) {
	var list []Record
	for {
		text, err := readString(r)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		rec, err := ParseRecord(text)
		if err != nil {
			return nil, err
		}
		if list = append(list, rec); len(list) > maxRecords {
			return nil, fmt.Errorf("more than %d names", maxRecords)
		}
	}
}

func shortened(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
