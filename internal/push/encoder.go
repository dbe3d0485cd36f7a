package push

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"time"

	"dim/internal/cluster"
)

// writeTimeout bounds each write of an answer. A node reads the answer while it looks, so that the whole may take long.
const writeTimeout = time.Minute

// writeAnswer writes an answer.
func (h *Hub) writeAnswer(w http.ResponseWriter, node cluster.NodeName, c *Changes) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // deadlines are the connection's
	out := bufio.NewWriterSize(deadlineWriter{w, http.NewResponseController(w)}, 16<<10)
	fmt.Fprintf(out, "now %s:%d\n", c.Image, c.Stamp)
	n := 0
	for dir := range c.Dirs {
		out.WriteString("look /")
		out.WriteString(escape(dir))
		if out.WriteByte('\n') != nil {
			return // the caller is gone
		}
		n++
	}
	out.WriteString("end\n")
	_ = out.Flush()
	if n > 0 {
		h.Log.Debug("node looks again", "node", node, "directories", n)
	}
}

// deadlineWriter sets a new deadline for each write.
type deadlineWriter struct {
	http.ResponseWriter
	to *http.ResponseController
}

func (d deadlineWriter) Write(b []byte) (int, error) {
	_ = d.to.SetWriteDeadline(time.Now().Add(writeTimeout))
	return d.ResponseWriter.Write(b)
}

// escape writes bytes that would end a line or a word as %XX.
func escape(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r == '%' || r == 0x7f }) {
		return path
	}
	var b strings.Builder
	for _, c := range []byte(path) {
		if c <= ' ' || c == '%' || c == 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
