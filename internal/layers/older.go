package layers

import (
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/replica"
	"dim/internal/vfs"
)

// HasOlderFile reports whether the layer has a regular file of its own at a path that was last written before t.
func (l Layer) HasOlderFile(path string, t time.Time) (older bool) {
	if l.none() {
		return false
	}
	_ = l.r.View(func(root replica.LayerEntry) error {
		e, ok := root.At(path)
		if !ok || e.Kind() != vfs.Regular {
			return nil
		}
		var st unix.Stat_t
		if err := e.Stat(&st); err != nil {
			return err
		}
		older = time.Unix(st.Mtim.Unix()).Before(t)
		return nil
	})
	return older
}
