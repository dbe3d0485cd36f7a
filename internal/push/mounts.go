package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/durable"
)

// MountTable is what a node has mounted on its replica, as it reported last, perhaps before the server was restarted.
type MountTable struct {
	Node   cluster.NodeName `json:"node"`
	Boot   string           `json:"boot"`
	Image  string           `json:"image"`
	Called time.Time        `json:"heard"`
	Mounts []Mount          `json:"mounts"`
}

// update takes the mounts of a call, and reports whether they are others than before.
func (m *MountTable) update(node cluster.NodeName, s *Status) (changed bool) {
	changed = m.Boot != s.Boot || m.Image != s.Image || !slices.Equal(m.Mounts, s.Mounts)
	*m = MountTable{Node: node, Boot: s.Boot, Image: s.Image, Called: s.Called, Mounts: s.Mounts}
	return changed
}

// Mounts returns what a node has mounted; ok is false when it has never reported that.
func (h *Hub) Mounts(node cluster.NodeName) (m MountTable, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.mounts.Node == "" {
		return m, false
	}
	return r.mounts, true
}

// mountsFormat is the version of the file that Save writes (docs/formats/data.md).
const mountsFormat = 1

type mountsFile struct {
	Format int          `json:"format"`
	Nodes  []MountTable `json:"nodes"`
}

// Save writes what nodes have mounted, if that has changed since it was saved or loaded. It may be called at any time.
func (h *Hub) Save(path string) error {
	f := mountsFile{Format: mountsFormat}
	h.mu.Lock()
	unsaved := h.unsaved
	h.unsaved = false
	for _, r := range h.nodes {
		if r.mounts.Node != "" {
			f.Nodes = append(f.Nodes, r.mounts)
		}
	}
	h.mu.Unlock()
	if !unsaved {
		return nil
	}
	slices.SortFunc(f.Nodes, func(a, b MountTable) int { return strings.Compare(string(a.Node), string(b.Node)) })
	b, err := json.Marshal(f)
	if err == nil {
		err = durable.WriteFile(path, b, 0o600)
	}
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.unsaved = true
		return fmt.Errorf("save the nodes' mounts: %w", err)
	}
	return nil
}

// Load reads what Save wrote, before any node has called. A missing file is no error.
func (h *Hub) Load(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var f mountsFile
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err == nil && f.Format != mountsFormat {
		err = fmt.Errorf("it has format %d, and this program reads %d", f.Format, mountsFormat)
	}
	if err != nil {
		return fmt.Errorf("load the nodes' mounts: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range f.Nodes {
		h.nodes[m.Node] = &record{wake: make(chan struct{}), mounts: m}
	}
	return nil
}
