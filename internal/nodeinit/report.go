package nodeinit

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The stages that are reported.
const (
	stageInitramfs = "initramfs"
	stageLink      = "link"
	stageAddress   = "address"
	stageMount     = "mount"
	stageHandover  = "handover"
)

// report is one line for the server.
type report struct {
	stage, detail, problem string
	at                     time.Time
}

// reporter tells the server how far the boot is. What happens before there is an address is kept and sent later.
// A failure is not repeated and costs at most reportPatience; after one, nothing is sent for a while.
type reporter struct {
	post    func(to netip.AddrPort, request []byte, deadline time.Time) error
	to      netip.AddrPort // invalid: not yet, or not at all
	pending []report
	silent  time.Time // nothing is sent before
}

const (
	reportPatience = 500 * time.Millisecond
	reportSilence  = 10 * time.Second
	maxReport      = 4 << 10 // the server's bound for one body
	maxDetail      = 200
)

func (r *reporter) add(n report) {
	// A stage that fails again and again is one line, the latest.
	if len(r.pending) > 0 && n.problem != "" {
		if last := &r.pending[len(r.pending)-1]; last.stage == n.stage && last.problem != "" {
			*last = n
			r.flush()
			return
		}
	}
	r.pending = append(r.pending, n)
	r.flush()
}

// flush sends what there is, if it can be sent.
func (r *reporter) flush() {
	now := time.Now()
	if !r.to.IsValid() || len(r.pending) == 0 || now.Before(r.silent) {
		return
	}
	err := r.post(r.to, postRequest(r.to, reportBody(r.pending, now)), now.Add(reportPatience))
	if err != nil {
		r.silent = now.Add(reportSilence)
		return
	}
	r.pending = nil
}

// reportBody writes the reports as JSON objects, one a line, the newest that fit.
func reportBody(reports []report, now time.Time) string {
	var lines []string
	size := 0
	for i := len(reports) - 1; i >= 0; i-- {
		n := reports[i]
		var b strings.Builder
		fmt.Fprintf(&b, `{"stage":%s`, quoteJSON(n.stage))
		if n.detail != "" {
			fmt.Fprintf(&b, `,"detail":%s`, quoteJSON(n.detail))
		}
		if n.problem != "" {
			fmt.Fprintf(&b, `,"error":%s`, quoteJSON(n.problem))
		}
		fmt.Fprintf(&b, `,"ago":%s}`+"\n", strconv.FormatFloat(now.Sub(n.at).Seconds(), 'f', 3, 64))
		if size += b.Len(); size > maxReport {
			break
		}
		lines = append([]string{b.String()}, lines...)
	}
	return strings.Join(lines, "")
}

// postRequest is HTTP as far as it is needed: net/http would be twice the size of all the rest of dim-init.
func postRequest(to netip.AddrPort, body string) []byte {
	return fmt.Appendf(nil, "POST /boot/stage HTTP/1.0\r\nHost: %s\r\nUser-Agent: dim-init\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", to, len(body), body)
}

// quoteJSON quotes a string of at most maxDetail bytes; encoding/json would be the biggest part of the program.
func quoteJSON(s string) string {
	if len(s) > maxDetail {
		s = s[:maxDetail]
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == utf8.RuneError || c < ' ':
			b.WriteByte('?')
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
