package compare

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/verdict"
)

// TaskName is the name of Task for package confine.
const TaskName = "verdict"

// Bounds of the processes that look at the files of versions.
const (
	maxTasks    = 2        // processes at one time
	maxReplaced = 32 << 20 // bytes of replaced paths
	partSize    = 512 << 10
	maxFindings = 16 << 20 // bytes of JSON
)

// taskLimits bound a process that looks at the files of two versions.
func taskLimits() confine.Limits {
	return confine.Limits{Memory: 1 << 30, CPU: 2 * time.Minute, Silence: 2 * time.Minute}
}

// request is one of several to a process. The file systems are the old version and the new one.
type request struct {
	Replaced []byte `json:"replaced,omitempty"` // some of the replaced paths, each with a zero byte after it
	Find     bool   `json:"find,omitempty"`     // all have been sent: the answer is the findings
}

// find has a process of its own look at the files of two versions.
func (c *Comparer) find(ctx context.Context, before, after readfs.FS, replaced []string) (*verdict.Findings, error) {
	paths, err := join(replaced)
	if err != nil {
		return nil, err
	}
	call := readfs.Call{Program: c.reader, Task: TaskName, Limits: taskLimits(), Most: maxFindings}
	s, err := call.Open(ctx)
	if err != nil {
		return nil, err
	}
	roots := []readfs.FS{before, after}
	for part := range slices.Chunk(paths, partSize) {
		if err == nil {
			err = s.Ask(request{Replaced: part}, roots, new(any))
		}
	}
	var f verdict.Findings
	if err == nil {
		err = s.Ask(request{Find: true}, roots, &f)
	}
	return &f, errors.Join(err, s.Close())
}

// join returns paths as requests have them.
func join(paths []string) ([]byte, error) {
	size := 0
	for _, p := range paths {
		size += len(p) + 1
	}
	if size > maxReplaced {
		return nil, errors.New("too many programs have been replaced")
	}
	list := make([]byte, 0, size)
	for _, p := range paths {
		list = append(append(list, p...), 0)
	}
	return list, nil
}

// Task looks at the files of two versions in a process of its own.
func Task() confine.Task { return readfs.HandleEach(answerRequests(func(readfs.FS) {})) }

// answerRequests returns a function that answers the requests of one session. It calls before with the old version
// before it looks at it.
func answerRequests(before func(readfs.FS)) func(context.Context, []byte, func(int) readfs.FS) (any, error) {
	var paths []byte
	return func(_ context.Context, text []byte, root func(int) readfs.FS) (any, error) {
		var r request
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, err
		}
		if !r.Find {
			paths = append(paths, r.Replaced...)
			return nil, nil
		}
		var replaced []string
		for p := range bytes.SplitSeq(bytes.TrimSuffix(paths, []byte{0}), []byte{0}) {
			if len(p) > 0 {
				replaced = append(replaced, string(p))
			}
		}
		before(root(0))
		return verdict.Find(root(0), root(1), replaced), nil
	}
}
