package nodeinit

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ResidentName is the name of the resident process. systemd takes a process whose name begins with "@" for one that the
// root depends on, and does not stop it at shutdown (systemd.io/ROOT_STORAGE_DAEMONS).
const ResidentName = "@dim-push"

// Bounds of a call, below those of the server.
const (
	maxCall    = 60 << 10
	maxEntries = 500
	maxPath    = 1 << 10
)

// pushRequest returns a call (docs/formats/push.md). With HTTP 1.0 the answer ends where the connection ends.
func pushRequest(to netip.AddrPort, body string) []byte {
	return fmt.Appendf(nil, "POST /node/hear HTTP/1.0\r\nHost: %s\r\nUser-Agent: dim-init\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", to, len(body), body)
}

// mountPoint is a mount on a path of the root.
type mountPoint struct{ path, kind string }

// staleProcess is a process that has replaced files mapped.
type staleProcess struct {
	pid        int
	name, unit string
	path       string // of one replaced file
	more       int    // number of further ones
}

// status is what the resident process reports.
type status struct {
	boot string // the kernel's boot id
	seen string // the state of the replica for which the node has looked, from an answer
	// unitsOf is the state of the replica, or an earlier one, of which the service manager has read its units.
	unitsOf string
	memory  int // in kB
	mounts  []mountPoint
	stale   []staleProcess
}

// encode writes a status as JSON objects, one a line. It leaves out, and counts, mounts and processes that exceed the
// bounds.
func (s *status) encode() string {
	var b strings.Builder
	entries, left := 0, 0
	add := func(path, line string) {
		if len(path) > maxPath || entries == maxEntries || b.Len()+len(line) > maxCall {
			left++
			return
		}
		entries++
		b.WriteString(line)
	}
	for _, m := range s.mounts {
		p := escapePath(m.path)
		add(p, fmt.Sprintf(`{"mount":"%s","type":%s}`+"\n", p, quoteJSON(m.kind)))
	}
	for _, x := range s.stale {
		p := escapePath(x.path)
		add(p, fmt.Sprintf(`{"stale":"%s","pid":%d,"name":%s,"unit":%s,"more":%d}`+"\n",
			p, x.pid, quoteJSON(x.name), quoteJSON(x.unit), x.more))
	}
	return fmt.Sprintf(`{"boot":%s,"seen":%s,"units":%s,"memory":%d,"left":%d}`+"\n",
		quoteJSON(s.boot), quoteJSON(s.seen), quoteJSON(s.unitsOf), s.memory, left) + b.String()
}

// escapePath writes all but plain ASCII characters as %XX, so that a path needs no quoting in JSON.
func escapePath(path string) string {
	var b strings.Builder
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || c == '%' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

var (
	errMalformed  = errors.New("the answer is malformed")
	errSuperseded = errors.New("another process of this node has called")
)

// answerParser reads an answer line by line.
type answerParser struct {
	status bool // the status line was read
	body   bool // the header was read
	now    string
	ended  bool
}

// line takes the next line. If it names a directory to look at, isDir is true.
func (a *answerParser) line(line string) (dir string, isDir bool, err error) {
	line = strings.TrimSuffix(line, "\r")
	if !a.status {
		a.status = true
		return "", false, statusError(line)
	}
	if !a.body {
		a.body = line == ""
		return "", false, nil
	}
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case a.ended:
		return "", false, errMalformed
	case word == "now" && rest != "" && len(rest) <= maxDetail:
		a.now = rest
	case word == "look" && strings.HasPrefix(rest, "/"):
		dir, err = url.PathUnescape(rest[1:])
		return dir, true, err
	case word == "end" && a.now != "":
		a.ended = true
	default:
		return "", false, errMalformed
	}
	return "", false, nil
}

func statusError(line string) error {
	version, status, _ := strings.Cut(line, " ")
	switch {
	case !strings.HasPrefix(version, "HTTP/1."):
		return errMalformed
	case strings.HasPrefix(status, "409"):
		return errSuperseded
	case !strings.HasPrefix(status, "200"):
		return fmt.Errorf("it answers %q", status)
	}
	return nil
}

// parseState returns the state of the replica from a whole answer.
func parseState(text string) (string, error) {
	var a answerParser
	for line := range strings.Lines(text) {
		if _, _, err := a.line(strings.TrimSuffix(line, "\n")); err != nil {
			return "", err
		}
	}
	if !a.ended {
		return "", errMalformed
	}
	return a.now, nil
}
