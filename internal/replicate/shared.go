package replicate

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"dim/internal/image"
)

const (
	// sharedFile is the size, in bytes, of the largest file whose answer is shared.
	sharedFile = 8 << 20
	// maxShared bounds the answers that are kept, in bytes.
	maxShared = 32 << 20
	// sharedFor is for how long they are kept after the last one was made.
	sharedFor = 30 * time.Second
)

// sharedAnswers are packed answers that several servers ask for: all that bring a version ask for the same at about the
// same time, and packing costs most of an answer.
type sharedAnswers struct {
	packing singleflight.Group
	turns   chan struct{} // an element for each answer that is being packed: more at a time would only take memory
	buffers sync.Pool     // of *bytes.Buffer

	mu     sync.Mutex
	kept   map[image.Digest][]byte // by the digest of path and body
	recent []image.Digest          // the keys of kept, the oldest first
	bytes  int                     // of all kept
	forget *time.Timer             // drops all; nil: nothing was kept yet
}

func newSharedAnswers() *sharedAnswers {
	return &sharedAnswers{turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// get returns the answer to a request, which pack makes if nobody has asked for it lately.
func (s *sharedAnswers) get(
	ctx context.Context, key image.Digest, pack func(ctx context.Context, to *bytes.Buffer) (keep bool, err error),
) ([]byte, error) {
	if b, ok := s.lookup(key); ok {
		return b, nil
	}
	got, err, _ := s.packing.Do(string(key[:]), func() (any, error) {
		if b, ok := s.lookup(key); ok {
			return b, nil
		}
		// Others may wait for the answer when the first asker has gone.
		b, keep, err := s.pack(context.WithoutCancel(ctx), pack)
		if keep && err == nil {
			s.keep(key, b)
		}
		return b, err
	})
	if err != nil {
		return nil, err
	}
	return got.([]byte), nil
}

// pack returns what pack writes, in its turn.
func (s *sharedAnswers) pack(
	ctx context.Context, pack func(ctx context.Context, to *bytes.Buffer) (keep bool, err error),
) (b []byte, keep bool, err error) {
	s.turns <- struct{}{}
	defer func() { <-s.turns }()
	to, ok := s.buffers.Get().(*bytes.Buffer)
	if !ok {
		to = new(bytes.Buffer)
	}
	defer s.buffers.Put(to)
	to.Reset()
	keep, err = pack(ctx, to)
	return bytes.Clone(to.Bytes()), keep, err // the buffer has up to twice its bytes
}

func (s *sharedAnswers) lookup(key image.Digest) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.kept[key]
	return b, ok
}

func (s *sharedAnswers) keep(key image.Digest, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[image.Digest][]byte{}
	}
	s.kept[key] = b
	s.recent = append(s.recent, key)
	s.bytes += len(b)
	for s.bytes > maxShared {
		s.bytes -= len(s.kept[s.recent[0]])
		delete(s.kept, s.recent[0])
		s.recent = s.recent[1:]
	}
	if s.forget == nil {
		s.forget = time.AfterFunc(sharedFor, s.forgetAll)
		return
	}
	s.forget.Reset(sharedFor)
}

func (s *sharedAnswers) forgetAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.recent, s.bytes = nil, nil, 0
}
