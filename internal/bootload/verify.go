package bootload

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// ErrWrongBytes is the error for content that does not have the digest that it should have.
var ErrWrongBytes = errors.New("wrong bytes")

// Verify is a Node.Check: it compares the digest of what is read with that of the file.
func Verify(f File) (io.WriteCloser, error) { return &verifier{Hash: sha256.New(), file: f}, nil }

type verifier struct {
	hash.Hash
	file File
	size int64
}

// Write implements io.Writer.
func (v *verifier) Write(p []byte) (int, error) {
	v.size += int64(len(p))
	return v.Hash.Write(p)
}

// Close reports whether all bytes were right. It reports nothing about a file that was not read to its end, for which
// there is another error.
func (v *verifier) Close() error {
	if v.size < v.file.Size {
		return nil
	}
	if got := v.Sum(nil); string(got) != string(v.file.Digest[:]) || v.size != v.file.Size {
		return fmt.Errorf("%w: they have the digest %x, not %x", ErrWrongBytes, got[:6], v.file.Digest[:6])
	}
	return nil
}
