package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"dim/internal/capture/archive"
	"dim/internal/capture/mounts"
)

// Listing has all entries of a directory tree.
type Listing struct {
	Started int64  // in seconds, by the clock of the other machine
	Disk    string // identifies the file system, and ends with its kind
	Records []Record
	Mounts  map[string]string // kinds of file systems by mount point; their content is not listed
}

// List lists the directory and everything below it. It does not list the content of mount points and of the paths in
// skip.
func (s *Session) List(ctx context.Context, skip []string) (*Listing, error) {
	mounts, err := s.mounts(ctx)
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	l := &Listing{Mounts: mounts}
	tests := []string{"-false"}
	for _, path := range append(slices.Sorted(maps.Keys(mounts)), skip...) {
		tests = append(tests, "-o -path "+quote("./"+glob(path)))
	}
	const script = `cd %s && printf '%%s\0%%s\0' "$(date +%%s)" "$(stat -f -c '%%i %%T' .)" && ` +
		`exec find . \( %s \) -prune -printf %s -o -printf %s`
	text := fmt.Sprintf(script, quote(s.location.Dir), strings.Join(tests, " "), quote(format), quote(format))
	c, err := s.start(ctx, "no", text, strings.NewReader(""))
	if err != nil {
		return nil, err
	}
	if err := l.read(c); err != nil {
		return nil, c.failed(ctx, err)
	}
	return l, c.complete(ctx)
}

func (l *Listing) read(c *command) error {
	started, err := readString(c.out)
	if err != nil {
		return err
	}
	if l.Started, err = strconv.ParseInt(started, 10, 64); err != nil {
		return fmt.Errorf("its clock: %w", err)
	}
	if l.Disk, err = readString(c.out); err != nil {
		return err
	}
	l.Records, err = readRecords(c.out)
	return err
}

// failed ends a command after an error. If its output has ended early, the error has the message of the command.
func (c *command) failed(ctx context.Context, err error) error {
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if ended {
		_ = c.wait()
	} else {
		c.stop()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case ended:
		return c.explain(err)
	}
	return err
}

// complete waits for the end of the command, and returns an error if it has not listed everything. Files that vanish
// meanwhile are no error.
func (c *command) complete(ctx context.Context) error {
	if err := c.wait(); err != nil {
		return c.failed(ctx, err)
	}
	if c.status() == 0 {
		return nil
	}
	for line := range strings.Lines(c.stderr.text()) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasSuffix(line, ": No such file or directory") {
			return &Error{Text: line, Hint: "everything in the master must be readable: log in as root"}
		}
	}
	if c.stderr.truncated {
		return &Error{Text: "find prints too many errors"}
	}
	return nil
}

// mounts returns the kinds of file systems by mount points below the directory, without those below another.
func (s *Session) mounts(ctx context.Context) (map[string]string, error) {
	const script = `cd %s && printf '%%s\0' "$(pwd -P)" && exec cat /proc/self/mountinfo`
	c, err := s.start(ctx, "no", fmt.Sprintf(script, quote(s.location.Dir)), strings.NewReader(""))
	if err != nil {
		return nil, err
	}
	root, err := readString(c.out)
	var text []byte
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(c.out, maxMounts+1))
	}
	if len(text) > maxMounts {
		err = errors.New("too many mounts")
	}
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if err := c.wait(); err != nil || c.status() != 0 {
		return nil, c.explain(fmt.Errorf("exit status %d", c.status()))
	}
	found, err := mounts.Parse(string(text), root)
	if err != nil {
		return nil, err
	}
	size := 0
	for path := range found {
		size += len(path) + 4
	}
	if size > maxCommand {
		return nil, fmt.Errorf("%d mounts in the master are too many", len(found))
	}
	return found, nil
}

const (
	maxMounts  = 16 << 20
	maxCommand = 64 << 10 // an argument has at most 128 KiB (linux/binfmts.h, MAX_ARG_STRLEN)
)

// names returns paths in the form for xargs and tar. Each begins with "./", so that none looks like an option.
func names(paths []string) io.Reader {
	var b bytes.Buffer
	for _, p := range paths {
		b.WriteString("./" + p + "\x00")
	}
	return &b
}

// Stat returns the records of paths. Paths that do not exist have none.
func (s *Session) Stat(ctx context.Context, paths []string) (map[string]Record, error) {
	c, err := s.start(ctx, "no", fmt.Sprintf(`cd %s && exec xargs -0 -r sh -c %s sh`, quote(s.location.Dir),
		quote(`find "$@" -maxdepth 0 -printf `+quote(format)+`; exit 0`)), names(paths))
	if err != nil {
		return nil, err
	}
	records, err := readRecords(c.out)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if err := c.complete(ctx); err != nil {
		return nil, err
	}
	found := make(map[string]Record, len(records))
	for _, r := range records {
		found[r.Path] = r
	}
	return found, nil
}

// Fetch calls each for the entries at paths, as members of an archive with content. Directories have no content. It
// returns the error messages of tar about entries that are missing.
func (s *Session) Fetch(
	ctx context.Context, paths []string, each func(*archive.Member) error,
) (messages string, err error) {
	const script = `cd %s && exec tar --create --format=pax --sparse --xattrs --numeric-owner --no-recursion ` +
		`--hard-dereference --null --no-unquote --files-from=- --file=-`
	c, err := s.start(ctx, "no", fmt.Sprintf(script, quote(s.location.Dir)), names(paths))
	if err != nil {
		return "", err
	}
	if err := members(ctx, c.out, each); err != nil {
		return "", c.failed(ctx, err)
	}
	if err := c.wait(); err != nil {
		return "", c.failed(ctx, err)
	}
	return c.stderr.text(), nil
}

func members(ctx context.Context, in *bufio.Reader, each func(*archive.Member) error) error {
	r := archive.NewReader(ctx, in)
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := each(m); err != nil {
			return err
		}
	}
}
