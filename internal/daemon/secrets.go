package daemon

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
	"dim/internal/secrets"
)

// secretWatch looks for secrets in what a capture brings, and tells of each once: what was told of stands in a file beside the capture's notes, by
// path and content. Without that file all of an image is told of again.
type secretWatch struct {
	d      *daemon
	im     *cluster.Image
	tell   func(text string)
	hidden map[string]bool // paths at which every node has a file of its own
	file   string
	known  toldSecrets
	found  []control.Secret
	fresh  []string
}

// toldSecrets is the form of the file.
type toldSecrets struct {
	Format int      `json:"format"`
	Told   []string `json:"told"` // digests of path and content, the oldest first
}

const (
	toldFormat = 1
	mostTold   = 10_000
)

func (d *daemon) newSecretWatch(im *cluster.Image, tell func(text string)) *secretWatch {
	w := &secretWatch{
		d: d, im: im, tell: tell, file: filepath.Join(d.layout.notes(), string(im.Name)+".secrets"),
		known: toldSecrets{Format: toldFormat}, hidden: map[string]bool{}, found: []control.Secret{},
	}
	if !im.DisabledBuiltins[builtin.MachineID] {
		w.hidden["etc/machine-id"], w.hidden["var/lib/dbus/machine-id"] = true, true
	}
	for _, f := range im.Files {
		w.hidden[f.Path] = true
	}
	text, err := os.ReadFile(w.file)
	var kept toldSecrets
	if err == nil && json.Unmarshal(text, &kept) == nil && kept.Format == toldFormat {
		w.known = kept
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("secrets told of cannot be read", "file", w.file, "error", err)
	}
	return w
}

// reviewWatched looks for secrets in what a watched master brings; nobody waits for an answer, so it tells the log.
func (d *daemon) reviewWatched(ctx context.Context, r *capture.Result) {
	im, ok := d.cluster().Image(cluster.ImageName(r.Version.Image))
	if !ok {
		return
	}
	w := d.newSecretWatch(im, func(text string) { d.log.Warn("secret in a master", "image", im.Name, "what", text) })
	w.review(ctx, r)
	w.remember()
}

// review looks at what a version that is about to be made brings: its changes, or all of it when it is the first or they are not known. It keeps
// the changes for those that ask next.
func (w *secretWatch) review(ctx context.Context, r *capture.Result) {
	var err error
	if r.Changes == nil {
		err = image.Walk(ctx, w.d.store.Tree, &r.Version.Root, w.look)
	} else {
		w.d.compare.Keep(&r.Before, &r.Version, r.Changes)
	}
	for i := 0; i < len(r.Changes) && err == nil; i++ {
		if c := r.Changes[i]; c.New != nil {
			err = w.look(c.Path, c.New)
		}
	}
	if err != nil {
		w.tell("secrets were not looked for: " + err.Error())
	}
}

// look tells of a secret in an entry.
func (w *secretWatch) look(path string, e *image.Entry) error {
	if w.hidden[path] || !secrets.Suspect(path, e) {
		return nil
	}
	sum := image.Sum([]byte(path + "\x00" + e.Digest.String())).String()
	if slices.Contains(w.known.Told, sum) {
		return nil
	}
	f, err := w.d.store.OpenBlob(e.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, secrets.MaxRead))
	if err != nil {
		return err
	}
	kind := secrets.Examine(path, b)
	if kind == "" || secrets.Renewed(kind) && w.im.Keep.Cover(path) {
		return nil
	}
	w.fresh = append(w.fresh, sum)
	w.found = append(w.found, control.Secret{Path: "/" + path, Kind: kind})
	w.tell(fmt.Sprintf("/%s: %s that every node of %s would have; an exclude rule keeps it out, a node file gives each node its own", path, kind, w.im.Name))
	return nil
}

// remember notes what was told of, once the version is there.
func (w *secretWatch) remember() {
	if len(w.fresh) == 0 {
		return
	}
	w.known.Told = append(w.known.Told, w.fresh...)
	w.known.Told = w.known.Told[max(0, len(w.known.Told)-mostTold):]
	text, err := json.Marshal(w.known)
	if err == nil {
		err = durable.WriteFile(w.file, append(text, '\n'), 0o600)
	}
	if err != nil {
		w.d.log.Warn("secrets told of cannot be noted", "file", w.file, "error", err)
	}
}
