package masters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/cluster/builtin"
	"dim/internal/control"
	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/secrets"
)

// secretScan looks for secrets in what a capture brings, and warns of each once. The secrets that it has warned of are
// kept in a file beside the capture's notes, by path and content. Without that file it warns of all of an image again.
type secretScan struct {
	m      *Masters
	im     *cluster.Image
	hidden map[string]bool // paths at which every node has a file of its own
	file   string
	known  knownSecrets
	found  []control.Warning
	fresh  []string // digests to be added to known
}

// knownSecrets is the form of the file.
type knownSecrets struct {
	Format int      `json:"format"`
	Told   []string `json:"told"` // digests of path and content, the oldest first
}

const (
	secretsFormat = 1
	maxSecrets    = 10_000
)

func (m *Masters) newSecretScan(im *cluster.Image) *secretScan {
	s := &secretScan{
		m: m, im: im, file: filepath.Join(m.Notes, string(im.Name)+".secrets"),
		known: knownSecrets{Format: secretsFormat}, hidden: map[string]bool{},
	}
	if !im.DisabledBuiltins[builtin.MachineID] {
		s.hidden["etc/machine-id"], s.hidden["var/lib/dbus/machine-id"] = true, true
	}
	for _, f := range im.Files {
		s.hidden[f.Path] = true
	}
	text, err := os.ReadFile(s.file)
	var kept knownSecrets
	if err == nil && json.Unmarshal(text, &kept) == nil && kept.Format == secretsFormat {
		s.known = kept
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Log.Warn("known secrets cannot be read", "file", s.file, "error", err)
	}
	return s
}

// reviewWatched looks for secrets in what a watched master brings. Nobody waits for an answer, so it warns in the log.
func (m *Masters) reviewWatched(ctx context.Context, r *capture.Result) {
	im, ok := m.Follow.Cluster().Image(cluster.ImageName(r.Version.Image))
	if !ok {
		return
	}
	s := m.newSecretScan(im)
	s.review(ctx, r)
	for _, w := range s.found {
		m.Log.Warn("secret in a master", "image", im.Name, "reason", w.Path+": "+w.Text+"; "+w.Hint)
	}
	s.save()
}

// review looks at what a version that is about to be made brings: its changes, or all of it when it is the first or
// they are not known. The changes are kept for those that ask next what they mean.
func (s *secretScan) review(ctx context.Context, r *capture.Result) {
	var err error
	if r.Changes == nil {
		err = treediff.Walk(ctx, s.m.Store.Tree, &r.Version.Root, s.examine)
	} else {
		s.m.Compare.Keep(&r.Before, &r.Version, r.Changes)
	}
	for i := 0; i < len(r.Changes) && err == nil; i++ {
		if c := r.Changes[i]; c.New != nil {
			err = s.examine(c.Path, c.New)
		}
	}
	if err != nil {
		s.found = append(s.found, control.Warning{
			Kind: control.WarnOdd, Text: "secrets were not looked for: " + err.Error(), Hint: "dim image verify",
		})
	}
}

// examine warns if an entry is a secret that it has not warned of.
func (s *secretScan) examine(path string, e *image.Entry) error {
	if s.hidden[path] || !secrets.Suspect(path, e) {
		return nil
	}
	sum := image.Sum([]byte(path + "\x00" + e.Digest.String())).String()
	if slices.Contains(s.known.Told, sum) {
		return nil
	}
	f, err := s.m.Store.OpenBlob(e.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secrets.MaxRead))
	if err != nil {
		return err
	}
	kind := secrets.Examine(path, b)
	if kind == "" || secrets.Renewed(kind) && s.im.Keep.Cover(path) {
		return nil
	}
	s.fresh = append(s.fresh, sum)
	s.found = append(s.found, control.Warning{
		Kind: control.WarnSecret, Path: "/" + path,
		Text: fmt.Sprintf("%s that every node of %s would have", kind, s.im.Name),
		Hint: "an exclude rule keeps it out, a node file gives each node its own",
	})
	return nil
}

// save keeps which secrets it has warned of, once the version exists.
func (s *secretScan) save() {
	if len(s.fresh) == 0 {
		return
	}
	s.known.Told = append(s.known.Told, s.fresh...)
	s.known.Told = s.known.Told[max(0, len(s.known.Told)-maxSecrets):]
	text, err := json.Marshal(s.known)
	if err == nil {
		err = durable.WriteFile(s.file, append(text, '\n'), 0o600)
	}
	if err != nil {
		s.m.Log.Warn("known secrets cannot be kept", "file", s.file, "error", err)
	}
}
