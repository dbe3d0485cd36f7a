package compare

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/testkit"
)

const readerName = "dim-reader"

// TestMain runs the processes that the tests let read.
func TestMain(m *testing.M) {
	if os.Args[0] == readerName {
		tasks := map[string]confine.Task{TaskName: breakableTask}
		os.Exit(confine.Main(context.Background(), os.Stdin, os.Stdout, tasks))
	}
	os.Exit(m.Run())
}

// breakableTask is Task, but it crashes if the old version has the file crash.
func breakableTask(ctx context.Context, c *confine.Child) error {
	return readfs.HandleEach(answerRequests(func(root readfs.FS) {
		if _, err := root.Stat("crash"); err == nil {
			panic("the parser is broken")
		}
	}))(ctx, c)
}

const unit = "usr/lib/systemd/system/cron.service"

// services are the files of a version with one service.
func services() fstest.MapFS {
	files := fstest.MapFS{
		unit: {Data: []byte("ExecStart=/usr/sbin/cron\n")}, "usr/sbin/cron": {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
	}
	files["etc/systemd/system/multi-user.target.wants/cron.service"] = files[unit]
	return files
}

// replace returns changes of n programs, the last of them the one of the service. Their paths take more than one
// request.
func replace(n int) []treediff.Change {
	file := func(text string) *image.Entry {
		return &image.Entry{Type: image.Regular, Mode: 0o755, Digest: image.Sum([]byte(text))}
	}
	var list []treediff.Change
	for i := range n - 1 {
		path := fmt.Sprintf("usr/bin/%s%08d", strings.Repeat("x", 200), i)
		list = append(list, treediff.Change{Path: path, Old: file("1"), New: file("2")})
	}
	return append(list, treediff.Change{Path: "usr/sbin/cron", Old: file("1"), New: file("2")})
}

func TestServicesOfReplacedProgramsAreFoundHoweverManyAreReplaced(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 1, "one"), s.version(t, 1, "two")
	c := newComparerOf(s, services())
	c.Keep(one, two, replace(10_000))
	v := testkit.Value(c.Verdict(t.Context(), one, two))(t)
	if v.Unknown != "" || len(v.Restart) != 1 || v.Restart[0].Unit != "cron.service" ||
		!slices.Equal(v.Restart[0].Because, []string{"/usr/sbin/cron"}) || v.Programs != 10_000 {
		t.Errorf("%+v", v)
	}
}

func TestFilesThatBreakTheirReaderAreToldOnce(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 1, "one"), s.version(t, 1, "two")
	files := services()
	files["crash"] = &fstest.MapFile{}
	c := newComparerOf(s, files)
	c.Keep(one, two, replace(1))
	v := testkit.Value(c.Verdict(t.Context(), one, two))(t)
	if !strings.Contains(v.Unknown, "crashed: panic: the parser is broken") || v.Programs != 1 || len(v.Restart) > 0 {
		t.Fatalf("%+v", v)
	}
	delete(files, "crash") // an answer without Unknown would mean that a process was started again
	if again := testkit.Value(c.Verdict(t.Context(), one, two))(t); again.Unknown != v.Unknown {
		t.Errorf("it was read again: %+v", again)
	}
	c.mu.Lock()
	for p, j := range c.verdicts {
		j.at = j.at.Add(-failureLife)
		c.verdicts[p] = j
	}
	c.mu.Unlock()
	if later := testkit.Value(c.Verdict(t.Context(), one, two))(t); later.Unknown != "" {
		t.Errorf("it was not read again: %+v", later)
	}
}

func TestManyQuestionsStartFewProcesses(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 1, "one"), s.version(t, 1, "two")
	var mu sync.Mutex
	opened := 0
	c := newComparerOf(s, nil)
	c.files = func(image.Entry) readfs.FS {
		mu.Lock()
		defer mu.Unlock()
		opened++
		return services()
	}
	c.Keep(one, two, replace(1))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if v, err := c.Verdict(t.Context(), one, two); err != nil || len(v.Restart) != 1 {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	wg.Wait()
	if opened > 2*maxTasks { // two versions each
		t.Errorf("%d versions were opened", opened)
	}
}

func TestAQuestionThatIsCancelledIsNotAFailure(t *testing.T) {
	s := newSource()
	one, two := s.version(t, 1, "one"), s.version(t, 1, "two")
	c := newComparerOf(s, services())
	c.Keep(one, two, replace(1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Verdict(ended, one, two); err == nil {
		t.Error("a verdict after the end")
	}
	if v := testkit.Value(c.Verdict(t.Context(), one, two))(t); v.Unknown != "" {
		t.Errorf("%+v", v)
	}
}

func TestTooManyReplacedProgramsAreRefused(t *testing.T) {
	if _, err := join([]string{strings.Repeat("x", maxReplaced)}); err == nil {
		t.Error("they are not")
	}
}
