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

// report is one stage report.
type report struct {
	stage, detail, problem string
	at                     time.Time
}

// reporter sends stage reports to the server. Reports from before the node has an address are kept and sent later. A
// request that fails costs at most reportTimeout; then nothing is sent for reportPause.
type reporter struct {
	post    func(to netip.AddrPort, request []byte, deadline time.Time) error
	to      netip.AddrPort // invalid: nothing can be sent yet
	pending []report
	resume  time.Time // nothing is sent before
}

const (
	reportTimeout = 500 * time.Millisecond
	reportPause   = 10 * time.Second
	maxReport     = 4 << 10 // the server's bound for one body
	maxDetail     = 200
)

func (r *reporter) add(n report) {
	// Of a stage that fails again and again only the last report is kept.
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

// flush sends the pending reports, if possible.
func (r *reporter) flush() {
	now := time.Now()
	if !r.to.IsValid() || len(r.pending) == 0 || now.Before(r.resume) {
		return
	}
	err := r.post(r.to, postRequest(r.to, reportBody(r.pending, now)), now.Add(reportTimeout))
	if err != nil {
		r.resume = now.Add(reportPause)
		return
	}
	r.pending = nil
}

// reportBody writes the latest reports that fit as JSON objects, one a line.
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

// postRequest returns an HTTP request. net/http would be twice the size of the rest of dim-init.
func postRequest(to netip.AddrPort, body string) []byte {
	return fmt.Appendf(nil, "POST /boot/stage HTTP/1.0\r\nHost: %s\r\nUser-Agent: dim-init\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", to, len(body), body)
}

// quoteJSON quotes at most maxDetail bytes of a string. encoding/json would be the largest part of the program.
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
