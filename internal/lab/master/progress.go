package master

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
)

// Progress says how far an installation is.
type Progress struct {
	Step  string // "installing essential packages"
	Done  int    // packages of this step that are done; one that is unpacked but not configured counts half
	Total int    // packages of this step; 0: the step does not handle packages, or their number is not known yet
}

// progressWriter finds the progress of an installation in the output of mmdebstrap --verbose, which contains the output
// of apt and dpkg.
type progressWriter struct {
	report func(Progress)

	line       []byte // the beginning of a line that is not complete
	step       string // the last one that mmdebstrap has named
	total      int    // packages that apt has announced
	downloaded int
	unpacked   int
	configured int
}

// newlyInstalled matches apt's summary of what it is going to do.
var newlyInstalled = regexp.MustCompile(`^\d+ upgraded, (\d+) newly installed,`)

// Write implements io.Writer. It never fails.
func (w *progressWriter) Write(p []byte) (int, error) {
	w.line = append(w.line, p...)
	for {
		line, rest, complete := bytes.Cut(w.line, []byte("\n"))
		if !complete {
			return len(p), nil
		}
		w.parse(string(line))
		w.line = rest
	}
}

// parse reports the progress that a line stands for, if any.
func (w *progressWriter) parse(line string) {
	switch {
	case strings.HasPrefix(line, "I: ") && strings.HasSuffix(line, "..."): // "I: extracting archives..."
		w.step = strings.TrimSuffix(line[len("I: "):], "...")
		w.unpacked, w.configured = 0, 0
		w.report(Progress{Step: w.step})
	case newlyInstalled.MatchString(line):
		w.total, _ = strconv.Atoi(newlyInstalled.FindStringSubmatch(line)[1])
		w.downloaded = 0
	case strings.HasPrefix(line, "Get:") && w.total > 0:
		w.downloaded++
		w.reportPackages("downloading packages", w.downloaded)
	case strings.HasPrefix(line, "Unpacking "):
		w.unpacked++
		w.reportPackages(w.step, (w.unpacked+w.configured)/2)
	case strings.HasPrefix(line, "Processing triggers for "): // "Processing triggers for libc-bin (2.36-9) ..."
		pkg, _, _ := strings.Cut(line[len("Processing triggers for "):], " ")
		w.report(Progress{Step: "processing triggers for " + pkg})
	case strings.HasPrefix(line, "Setting up "):
		w.configured++
		w.reportPackages(w.step, (w.unpacked+w.configured)/2)
	}
}

func (w *progressWriter) reportPackages(step string, done int) {
	w.report(Progress{Step: step, Done: min(done, w.total), Total: w.total})
}
