package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // for the states after zeros
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync"

	"dim/internal/image"
)

// zeros keeps the states of hashes after runs of zeros, so that a hole costs little where the same hole was hashed
// before. The digest of a file depends on each of its bytes: a hole with other bytes in front of it than any earlier
// one costs as much to hash as data does.
//
// The states of a run at the beginning of a file are the same for all files. Those of the first 64 GiB are in a table
// of the program. Other runs are known by the state before them: a file that is captured again after a change behind
// its hole, as /var/log/lastlog after a login, has the same state in front of it.
type zeros struct {
	chunk [chunk]byte // is never written

	mu    sync.Mutex
	runs  map[image.Digest][][]byte // by the digest of the state before: the state after each zeroStep bytes more
	order []image.Digest            // the keys of runs, oldest first
	kept  int                       // states in runs
}

const (
	zeroStep  = 64 << 20
	maxStates = 16 << 10 // for 1 TiB in all, in 2 MB
)

// zeroTable has one line for each zeroStep bytes from the beginning: the state of SHA-256 (FIPS 180-4, section 6.2.2,
// step 4) after them, as hexadecimal digits. TestTheTableOfZeros writes it.
//
//go:embed zeros.txt
var zeroTable string

const tableLine = 2*sha256.Size + 1

// write lets h hash n zeros. It calls counted with the number of bytes since the last call.
func (z *zeros) write(ctx context.Context, h hash.Hash, n int64, counted func(uint64)) error {
	start := fromTable(h, n)
	key, at := image.Digest{}, start
	if n-at >= zeroStep {
		var known int64
		key, known = z.resume(h, (n-at)/zeroStep)
		at += known * zeroStep
	}
	if at > 0 {
		counted(uint64(at))
	}
	for at < n {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := min(n-at, chunk)
		h.Write(z.chunk[:part])
		counted(uint64(part))
		if at += part; (at-start)%zeroStep == 0 {
			z.keep(key, h, (at-start)/zeroStep)
		}
	}
	return nil
}

// fromTable sets h, if it has hashed nothing yet, to its state after as many of n zeros as the table has, and returns
// how many.
func fromTable(h hash.Hash, n int64) int64 {
	steps := min(n/zeroStep, int64(len(zeroTable)/tableLine))
	if steps == 0 {
		return 0
	}
	before := state(h)
	if !bytes.Equal(before, state(newHash())) {
		return 0
	}
	restore(h, tableState(before, steps))
	return steps * zeroStep
}

// resume sets h to its state after as many steps of zeros as are known, at most want, and returns how many. key is that
// of the run.
func (z *zeros) resume(h hash.Hash, want int64) (key image.Digest, steps int64) {
	key = image.Sum(state(h))
	z.mu.Lock()
	run := z.runs[key]
	z.mu.Unlock()
	if steps = min(want, int64(len(run))); steps > 0 {
		restore(h, run[steps-1])
	}
	return key, steps
}

// keep keeps the state of h after so many steps of a run. It drops the oldest runs if there are too many states.
func (z *zeros) keep(key image.Digest, h hash.Hash, steps int64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	run, known := z.runs[key]
	if int64(len(run))+1 != steps || steps > maxStates {
		return // another goroutine has kept it, or the run is too long
	}
	if z.runs == nil {
		z.runs = make(map[image.Digest][][]byte)
	}
	if !known {
		z.order = append(z.order, key)
	}
	z.runs[key] = append(run, state(h))
	for z.kept++; z.kept > maxStates; {
		oldest := z.order[0]
		z.kept -= len(z.runs[oldest])
		delete(z.runs, oldest)
		z.order = z.order[1:]
	}
}

// state returns the state of a hash.
func state(h hash.Hash) []byte {
	b, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(fmt.Sprintf("store: the state of a hash cannot be read: %v", err)) // crypto/sha256 promises it
	}
	return b
}

func restore(h hash.Hash, state []byte) {
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic(fmt.Sprintf("store: the state of a hash cannot be restored: %v", err)) // it is of the same program
	}
}

// tableState returns the state after the n-th step of the table, in the form of that of an empty hash: a mark of 4
// bytes, the state, a buffer, and the number of bytes that were hashed.
func tableState(empty []byte, n int64) []byte {
	line := zeroTable[(n-1)*tableLine:][:tableLine-1]
	b := bytes.Clone(empty)
	if _, err := hex.Decode(b[4:], []byte(line)); err != nil {
		panic(fmt.Sprintf("store: line %d of the table of zeros: %v", n, err)) // a test has read it
	}
	binary.BigEndian.PutUint64(b[len(b)-8:], uint64(n*zeroStep))
	return b
}

// next reads the next bytes of r into the buffer. It skips the zeros before them if r can: see PutSparse.
func (w *hashWriter) next(r io.Reader) (n int, err error) {
	if z, ok := r.(interface {
		SkipZeros(unit int64) (int64, error)
	}); ok && w.sparse {
		skipped, err := z.SkipZeros(chunk) // in whole chunks, so that blocks begin where they do without it
		if err != nil {
			return 0, err
		}
		w.hole(w.off + skipped)
	}
	return io.ReadFull(r, w.buf)
}

// hole adds zeros up to end.
func (w *hashWriter) hole(end int64) {
	if n := end - w.off; n > 0 {
		w.holes = true
		w.off, w.zero = end, w.zero+n
	}
}

// hashZeros hashes the zeros before the current offset.
func (w *hashWriter) hashZeros() error {
	n := w.zero
	w.zero = 0
	return w.zeros.write(w.ctx, w.hash, n, w.hashed)
}
