package replica

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"dim/internal/image"
	"dim/internal/replica/replicatest"
	"dim/internal/vfs"
)

// lateSource has no blob before its version has arrived.
type lateSource struct {
	*replicatest.Memory
	arrived atomic.Bool
}

func (l *lateSource) OpenBlob(d image.Digest) (*os.File, error) {
	if !l.arrived.Load() {
		return nil, fmt.Errorf("open blob %s: %w", d, vfs.ELATER)
	}
	return l.Memory.OpenBlob(d)
}

// TestAReaderWaitsForABlobThatArrives has a version whose blobs arrive when somebody waits for them, and one whose
// blobs do not.
func TestAReaderWaitsForABlobThatArrives(t *testing.T) {
	for name, comes := range map[string]bool{"it arrives": true, "it does not arrive": false} {
		t.Run(name, func(t *testing.T) {
			m := &lateSource{Memory: newMemory(t)}
			o := newSite(t, m.Version(t, 1, v1), m.Memory)
			o.opts.Source = m
			o.opts.Await = func(d image.Digest) (*os.File, error) {
				m.arrived.Store(comes)
				return m.OpenBlob(d)
			}
			o.restart()
			h := o.Handle("etc/a")
			for range 2 {
				buf := make([]byte, 100)
				n, _, err := o.Read(root, h, buf, 0)
				switch {
				case comes && (err != nil || string(buf[:n]) != "a1"):
					t.Errorf("%q, %v", buf[:n], err)
				case !comes && !errors.Is(err, vfs.ELATER):
					t.Errorf("%d bytes, %v; want %v", n, err, vfs.ELATER)
				}
			}
		})
	}
}
