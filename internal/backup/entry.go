package backup

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"dim/internal/image"
	"dim/internal/layer"
)

// kind is the type of an entry, as the manifest has it.
type kind string

const (
	dirKind     kind = "dir"
	fileKind    kind = "file"
	symlinkKind kind = "link"
	charKind    kind = "char"
	blockKind   kind = "block"
	fifoKind    kind = "fifo"
	socketKind  kind = "socket"
)

// entry is one entry of a backup.
type entry struct {
	path         string // from the top of the backup, without a leading slash
	kind         kind
	mode         uint32 // 07777
	uid, gid     uint32
	mtime        image.Time
	size         uint64 // of a file
	digest       image.Digest
	target       string // of a symbolic link
	major, minor uint32
	hardLink     string        // an earlier name of the same file; then only path and kind are set besides
	xattrs       []image.Xattr // sorted by name
	origin       *origin       // of a file of a layer; nil: not known
}

// origin identifies one state of a file of a layer, see layer.CopyEntry.
type origin [16]byte

// wholeMax is the largest size of a file whose digest is of all its bytes. The digest of a larger one, which may be
// nearly all holes, leaves out blocks of zeros.
const wholeMax = 16 << 30

// Keywords of lines.
const (
	wholeDigest  = "sha256digest"
	blocksDigest = "sha256blocks"
	xattrPrefix  = "xattr."
)

// line returns the entry as a line of the manifest.
func (e *entry) line() []byte {
	b := fmt.Appendf(nil, "%s type=%s", encodeName("./"+e.path), e.kind)
	if e.hardLink != "" {
		return fmt.Appendf(b, " hardlink=%s\n", encodeName("./"+e.hardLink))
	}
	b = fmt.Appendf(b, " mode=%04o uid=%d gid=%d time=%d.%09d", e.mode, e.uid, e.gid, e.mtime.Sec, e.mtime.Nsec)
	switch e.kind {
	case fileKind:
		key := wholeDigest
		if e.size > wholeMax {
			key = blocksDigest
		}
		b = fmt.Appendf(b, " size=%d %s=%s", e.size, key, e.digest)
	case symlinkKind:
		b = fmt.Appendf(b, " link=%s", encodeName(e.target))
	case charKind, blockKind:
		b = fmt.Appendf(b, " device=linux,%d,%d", e.major, e.minor)
	}
	for _, x := range e.xattrs {
		b = fmt.Appendf(b, " %s%s=%s", xattrPrefix, encodeName(x.Name), base64.StdEncoding.EncodeToString(x.Value))
	}
	if e.origin != nil {
		b = fmt.Appendf(b, " origin=%s", hex.EncodeToString(e.origin[:]))
	}
	return append(b, '\n')
}

var errLine = errors.New("it is no line of a manifest")

// parseLine is the inverse of line. Only what line returns is taken.
func parseLine(line string) (*entry, error) {
	fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	e := &entry{}
	var err error
	if e.path, err = decodePath(fields[0]); err != nil {
		return nil, err
	}
	for _, field := range fields[1:] {
		key, value, ok := strings.Cut(field, "=")
		if !ok {
			return nil, errLine
		}
		if err := e.set(key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", e.path, err)
		}
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", e.path, err)
	}
	if !strings.HasSuffix(line, "\n") {
		line += "\n"
	}
	if string(e.line()) != line {
		return nil, fmt.Errorf("%s: %w", e.path, errLine)
	}
	return e, nil
}

// set sets the field that a keyword names.
func (e *entry) set(key, value string) (err error) {
	number := func(base, bits int) uint64 {
		n, perr := strconv.ParseUint(value, base, bits)
		err = errors.Join(err, perr)
		return n
	}
	switch key {
	case "type":
		e.kind = kind(value)
	case "hardlink":
		e.hardLink, err = decodePath(value)
	case "mode":
		e.mode = uint32(number(8, 12))
	case "uid":
		e.uid = uint32(number(10, 32))
	case "gid":
		e.gid = uint32(number(10, 32))
	case "time":
		err = e.setTime(value)
	case "size":
		e.size = number(10, 63)
	case wholeDigest, blocksDigest:
		e.digest, err = image.ParseDigest(value)
	case "link":
		e.target, err = decodeName(value)
	case "device":
		err = e.setDevice(value)
	case "origin":
		var b []byte
		if b, err = hex.DecodeString(value); err == nil && len(b) == len(origin{}) {
			o := origin(b)
			e.origin = &o
		}
	default:
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			return errLine
		}
		x := image.Xattr{}
		if x.Name, err = decodeName(name); err == nil {
			x.Value, err = base64.StdEncoding.DecodeString(value)
		}
		e.xattrs = append(e.xattrs, x)
	}
	return err
}

func (e *entry) setTime(value string) (err error) {
	sec, nsec, _ := strings.Cut(value, ".")
	if e.mtime.Sec, err = strconv.ParseInt(sec, 10, 64); err != nil {
		return err
	}
	n, err := strconv.ParseUint(nsec, 10, 32)
	e.mtime.Nsec = uint32(n)
	if err == nil && n >= 1e9 {
		err = errLine
	}
	return err
}

func (e *entry) setDevice(value string) error {
	parts := strings.Split(value, ",")
	if len(parts) != 3 {
		return errLine
	}
	major, err := strconv.ParseUint(parts[1], 10, 32)
	minor, err2 := strconv.ParseUint(parts[2], 10, 32)
	e.major, e.minor = uint32(major), uint32(minor)
	return errors.Join(err, err2)
}

// topNames are the only names at the top of a backup.
const (
	dataDir      = "data"
	manifestName = "manifest"
	infoName     = "backup.json"
)

// check refuses what no backup has, and what could do harm to whoever restores it.
func (e *entry) check() error {
	if e.path != dataDir && !strings.HasPrefix(e.path, dataDir+"/") {
		return errors.New("it is not in data/")
	}
	switch e.kind {
	case dirKind, fileKind:
	case symlinkKind, charKind, blockKind, fifoKind, socketKind:
		if !strings.HasPrefix(e.path, layersDir+"/") {
			return fmt.Errorf("it is of type %s, and not in a layer", e.kind)
		}
	default:
		return fmt.Errorf("its type %q is not known", e.kind)
	}
	switch {
	case e.path == dataDir && e.kind != dirKind:
		return errors.New("it is no directory")
	case e.hardLink != "" && (e.kind == dirKind || !strings.HasPrefix(e.hardLink, dataDir+"/")):
		return errors.New("it links to something that is no file of the backup")
	case e.kind == symlinkKind && e.hardLink == "" && e.target == "":
		return errors.New("its target is missing")
	case !slices.IsSortedFunc(e.xattrs, func(a, b image.Xattr) int { return strings.Compare(a.Name, b.Name) }):
		return errors.New("its extended attributes are not sorted")
	}
	return nil
}

// pathMax bounds a path: that of a layer, and of where the layer is.
const pathMax = layer.PathMax + 1024

// checkPath refuses a path that is not clean, relative and short.
func checkPath(path string) error {
	if path == "" || len(path) > pathMax || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%.64q is no path of a backup", path)
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || len(part) > 255 {
			return fmt.Errorf("%.64q is no path of a backup", path)
		}
	}
	return nil
}

func decodePath(text string) (string, error) {
	name, err := decodeName(text)
	if err != nil {
		return "", err
	}
	path, ok := strings.CutPrefix(name, "./")
	if !ok {
		return "", errLine
	}
	return path, checkPath(path)
}

// plain reports whether a byte of a name stands for itself. All others are written as in vis(3), "\ooo".
func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '\\' && c != '#' && c != '=' }

func encodeName(name string) string {
	if strings.IndexFunc(name, func(r rune) bool { return r >= 0x7f || !plain(byte(r)) }) < 0 {
		return name
	}
	var b strings.Builder
	for i := range len(name) {
		if plain(name[i]) {
			b.WriteByte(name[i])
		} else {
			fmt.Fprintf(&b, `\%03o`, name[i])
		}
	}
	return b.String()
}

func decodeName(text string) (string, error) {
	if !strings.Contains(text, `\`) {
		return text, nil
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		if i+4 > len(text) {
			return "", errLine
		}
		n, err := strconv.ParseUint(text[i+1:i+4], 8, 8)
		if err != nil {
			return "", errLine
		}
		b.WriteByte(byte(n))
		i += 3
	}
	return b.String(), nil
}
