package nodeinit

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ResidentName is what the process that stays is started as. By the @ systemd knows that the root may depend on it, and leaves it alone at the
// end (systemd.io/ROOT_STORAGE_DAEMONS).
const ResidentName = "@dim-push"

// Bounds of what a call says, below those of the server.
const (
	maxCall    = 60 << 10
	maxEntries = 500
	maxPath    = 1 << 10
)

// hearRequest asks the server to answer when something has changed (docs/formats/push.md). In HTTP 1.0 the end of the answer is that of
// the connection.
func hearRequest(at netip.AddrPort, body string) []byte {
	return fmt.Appendf(nil, "POST /node/hear HTTP/1.0\r\nHost: %s\r\nUser-Agent: dim-init\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", at, len(body), body)
}

// mountPoint is something mounted on a path of the root.
type mountPoint struct{ path, kind string }

// process is one that has a replaced file mapped.
type process struct {
	pid        int
	name, unit string
	path       string // of one such file
	more       int
}

// state is what the process tells of the node.
type state struct {
	boot, seen string
	memory     int // kB
	mounts     []mountPoint
	stale      []process
}

// call writes a state as JSON objects, one a line, as much of it as there is room for.
func (s *state) call() string {
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
		add(p, fmt.Sprintf(`{"stale":"%s","pid":%d,"name":%s,"unit":%s,"more":%d}`+"\n", p, x.pid, quoteJSON(x.name), quoteJSON(x.unit), x.more))
	}
	return fmt.Sprintf(`{"boot":%s,"seen":%s,"memory":%d,"left":%d}`+"\n", quoteJSON(s.boot), quoteJSON(s.seen), s.memory, left) + b.String()
}

// escapePath writes all bytes but the plain ones as %XX, so that a path stands in JSON as it is.
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
	errAnswer   = errors.New("the answer is not understood")
	errReplaced = errors.New("another process of this node has called")
)

// answer reads what the server says, line by line.
type answer struct {
	headed bool // the head of the HTTP answer is read
	begun  bool // so is the status line
	now    string
	ended  bool
}

// line takes the next line. It returns a directory to look at, if that is what it says.
func (a *answer) line(line string) (dir string, look bool, err error) {
	line = strings.TrimSuffix(line, "\r")
	if !a.begun {
		a.begun = true
		return "", false, statusError(line)
	}
	if !a.headed {
		a.headed = line == ""
		return "", false, nil
	}
	word, rest, _ := strings.Cut(line, " ")
	switch {
	case a.ended:
		return "", false, errAnswer
	case word == "now" && rest != "" && len(rest) <= maxDetail:
		a.now = rest
	case word == "look" && strings.HasPrefix(rest, "/"):
		dir, err = url.PathUnescape(rest[1:])
		return dir, true, err
	case word == "end" && a.now != "":
		a.ended = true
	default:
		return "", false, errAnswer
	}
	return "", false, nil
}

func statusError(line string) error {
	version, status, _ := strings.Cut(line, " ")
	switch {
	case !strings.HasPrefix(version, "HTTP/1."):
		return errAnswer
	case strings.HasPrefix(status, "409"):
		return errReplaced
	case !strings.HasPrefix(status, "200"):
		return fmt.Errorf("it answers %q", status)
	}
	return nil
}

// parseStart reads the answer to the first call, which says where the replica stands.
func parseStart(text string) (string, error) {
	var a answer
	for line := range strings.Lines(text) {
		if _, _, err := a.line(strings.TrimSuffix(line, "\n")); err != nil {
			return "", err
		}
	}
	if !a.ended {
		return "", errAnswer
	}
	return a.now, nil
}
