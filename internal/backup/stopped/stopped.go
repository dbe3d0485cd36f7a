// Package stopped is the source of a backup of a server that does not run: its data directory, which it keeps locked.
//
// It must not know how a backup is written.
package stopped

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/pki"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/sysfile"
)

// Source is a data directory on which no daemon runs. It implements backup.Source.
type Source struct {
	data  string
	lock  *os.File
	store *store.Store
	set   *replica.Set

	known *control.BackupState // what BackupState has found; it does not change
}

// Open locks a data directory, so that no daemon starts on it until Close.
func Open(data string) (s *Source, err error) {
	if err := pki.Check(data); err != nil {
		return nil, err
	}
	s = &Source{data: data}
	if s.lock, err = pki.Lock(data); err != nil {
		return nil, err
	}
	if s.store, err = store.Open(s.in("store"), store.Options{}); err == nil {
		s.set, err = replica.Open(replica.Options{Dir: s.in("replicas"), Source: s.store})
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Source) in(name string) string { return filepath.Join(s.data, name) }

// Close unlocks the data directory.
func (s *Source) Close() error {
	var errs []error
	if s.set != nil {
		errs = append(errs, s.set.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	return errors.Join(append(errs, sysfile.Unlock(s.lock))...)
}

// BackupState implements backup.Source. If the shared state is in the data directory, the copy of it is brought up to
// date.
func (s *Source) BackupState(ctx context.Context) (out control.BackupState, err error) {
	if s.known != nil {
		return *s.known, nil
	}
	state, err := s.state(ctx)
	if err != nil {
		out.Missing = err.Error()
	}
	out.Server = s.server()
	out.Heads = otherHeads(state.Servers, out.Server)
	if state.Description != nil && len(state.Description.Files) > 0 {
		out.Cluster = name(state.Description)
	}
	if out.Replicas, err = s.set.Homes(); err != nil {
		return out, err
	}
	if out.Journal, err = s.set.ExportJournal(); err == nil {
		s.known = &out
	}
	return out, err
}

// otherHeads returns the heads other than a server that is a head itself.
func otherHeads(servers map[string]coord.Server, server string) []string {
	isHead := func(name string) bool { return slices.Contains(servers[name].Roles, string(cluster.RoleHead)) }
	list := []string{}
	if !isHead(server) {
		return list
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		if name != server && isHead(name) {
			list = append(list, name)
		}
	}
	return list
}

// server returns the name of the server, which its certificate has (docs/formats/data.md); "" if it was never started.
func (s *Source) server() string {
	text, err := os.ReadFile(s.in("identity/cert.pem"))
	block, _ := pem.Decode(text)
	if err != nil || block == nil {
		return ""
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(cert.URIs) != 1 {
		return ""
	}
	parts := strings.Split(cert.URIs[0].Path, "/") // "", the id, the name, the roles
	if len(parts) < 3 {
		return ""
	}
	return parts[2]
}

// state returns the newest declared state that the data directory has.
func (s *Source) state(ctx context.Context) (state coord.State, err error) {
	file := s.in("state.json")
	if state, err = coord.LoadState(file); err != nil {
		return state, err
	}
	if _, err := os.Stat(filepath.Join(s.in("coord"), "member")); errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	c, err := coord.Open(ctx, coord.Options{Dir: s.in("coord")})
	if err != nil {
		return state, err
	}
	defer c.Close()
	now, err := c.Snapshot(ctx)
	if err != nil {
		return state, err
	}
	// What was kept of another etcd is newer: this one was used before.
	newer := now.Store == state.Store && now.Revision > state.Revision || state.Revision == 0
	if !newer || now.Restoring {
		return state, nil
	}
	return now, coord.SaveState(file, now)
}

// name returns the name of the described cluster; "" if the description cannot be read.
func name(d *coord.Description) string {
	c, err := cluster.Parse(cluster.Source{
		Name: d.Files[0].Name, XML: d.Files[0].Data,
		Open: func(name string) ([]byte, error) {
			i := slices.IndexFunc(d.Files, func(f coord.File) bool { return f.Name == name })
			if i < 0 {
				return nil, fs.ErrNotExist
			}
			return d.Files[i].Data, nil
		},
	})
	if err != nil {
		return ""
	}
	return c.Name
}

// Stage implements backup.Source. Nothing changes, so there is nothing to copy.
func (s *Source) Stage(_ context.Context, r control.StageRequest) (control.Staged, func(), error) {
	out := control.Staged{Path: r.Replica, Time: time.Now(), InPlace: true}
	dir, image := filepath.Split(r.Replica)
	if v, ok := s.set.Followed(filepath.Clean(dir), image); ok {
		out.Image, out.Version, out.Digest = v.Image, v.Number, v.Digest.String()
	}
	return out, func() {}, nil
}
