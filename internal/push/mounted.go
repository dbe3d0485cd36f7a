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

// Mounted is what a node has mounted on its replica, as it has said last, perhaps to a server that has ended since.
type Mounted struct {
	Node   cluster.NodeName `json:"node"`
	Boot   string           `json:"boot"`
	Image  string           `json:"image"`
	Heard  time.Time        `json:"heard"`
	Mounts []Mount          `json:"mounts"`
}

// learn takes what a node says, and reports whether it is another than before.
func (m *Mounted) learn(node cluster.NodeName, s *Said) (news bool) {
	news = m.Boot != s.Boot || m.Image != s.Image || !slices.Equal(m.Mounts, s.Mounts)
	*m = Mounted{Node: node, Boot: s.Boot, Image: s.Image, Heard: s.Heard, Mounts: s.Mounts}
	return news
}

// Mounted returns what a node has mounted; ok is false when it has never said so.
func (h *Hub) Mounted(node cluster.NodeName) (m Mounted, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.mounted.Node == "" {
		return m, false
	}
	return r.mounted, true
}

// mountsFormat is the version of the file that Save writes (docs/formats/data.md).
const mountsFormat = 1

type mountsFile struct {
	Format int       `json:"format"`
	Nodes  []Mounted `json:"nodes"`
}

// Save writes what nodes have mounted, if that is another than what was saved or loaded before. It may be called at any time.
func (h *Hub) Save(path string) error {
	f := mountsFile{Format: mountsFormat}
	h.mu.Lock()
	news := h.news
	h.news = false
	for _, r := range h.nodes {
		if r.mounted.Node != "" {
			f.Nodes = append(f.Nodes, r.mounted)
		}
	}
	h.mu.Unlock()
	if !news {
		return nil
	}
	slices.SortFunc(f.Nodes, func(a, b Mounted) int { return strings.Compare(string(a.Node), string(b.Node)) })
	b, err := json.Marshal(f)
	if err == nil {
		err = durable.WriteFile(path, b, 0o600)
	}
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.news = true
		return fmt.Errorf("save the nodes' mounts: %w", err)
	}
	return nil
}

// Load reads what Save has written, before any node is heard. A file that is not there is none.
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
		err = fmt.Errorf("it has format %d, and this program knows %d", f.Format, mountsFormat)
	}
	if err != nil {
		return fmt.Errorf("load the nodes' mounts: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range f.Nodes {
		h.nodes[m.Node] = &record{wake: make(chan struct{}), mounted: m}
	}
	return nil
}
