package replicate

import (
	"context"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"dim/internal/image"
	"dim/internal/store"
)

// Several servers often get the same version at the same time. They exchange its parts, so that a server with the whole
// version sends about one copy of it to all of them together. Every blob has an owner among these servers, which all
// of them compute alike. A server asks the sources that have the whole version for the blobs that it owns, and the
// other owners for theirs. A server that is asked for what it is still getting lets the asker wait, and sends a record
// now and then that tells how far it is. What an owner does not deliver comes from a source that has the whole version.
//
// An exchange of what each has, as BitTorrent does it, was not chosen: it needs as many messages as parts, and with few
// servers on a fast network the source still sends several copies before the others have something to offer.

const (
	// exchangeFrom is the least number of missing bytes for which servers exchange parts.
	exchangeFrom = 4 << 20
	// maxGetters bounds the servers that exchange parts with each other.
	maxGetters = 16
	// notBegun is how long a server lets an asker wait for parts of a version whose pull it has not begun.
	notBegun = 3 * time.Second
	// pendingInterval is the interval between the records that let an asker wait.
	pendingInterval = time.Second
	// maxPending bounds those records in an answer.
	maxPending = 600
	// noTrees is the position in an answer with trees from which on it has none: the asker wants only the header.
	noTrees = 1 << 62
)

const (
	// gettersHeader has, in the answer with trees, the names of servers that are getting the version.
	gettersHeader = "Dim-Getters"
	// partsHeader has, in a request to a server that is getting a version, the digest of that version.
	partsHeader = "Dim-Parts-Of"
)

// owner returns which server of a group owns a blob: the one whose name and the digest together have the largest hash
// (rendezvous hashing). If servers disagree about the group they still agree about most blobs.
func owner(group []string, d image.Digest) (name string) {
	best := uint64(0)
	for _, s := range group {
		h := fnv.New64a()
		_, _ = io.WriteString(h, s)
		_, _ = h.Write(d[:])
		if sum := h.Sum64(); name == "" || sum > best {
			name, best = s, sum
		}
	}
	return name
}

// worthExchanging reports whether so much is missing that servers exchange its parts.
func worthExchanging(needs []*need) bool {
	total := uint64(0)
	for _, n := range needs {
		total += n.size
	}
	return total >= exchangeFrom
}

// owners returns which server each blob is to be asked for; nil for one that this server owns.
func (p *pull) owners(needs []*need) map[*need]*peer {
	group := []string{p.o.name}
	byName := map[string]*peer{}
	for _, s := range p.peers {
		if s.partial {
			group = append(group, s.Name)
			byName[s.Name] = s
		}
	}
	if len(group) == 1 || !worthExchanging(needs) {
		return nil
	}
	p.exchanging = true
	owners := make(map[*need]*peer, len(needs))
	for _, n := range needs {
		// A difference to the file before is small, and its source computes it once for all.
		if n.size <= large || n.before.IsZero() {
			owners[n] = byName[owner(group, n.digest)]
		}
	}
	return owners
}

// mayAsk reports whether a source may be asked for a job.
func (p *pull) mayAsk(s *peer, j *job) bool {
	switch {
	case s.out || j.not[s]:
		return false
	case j.owner != nil:
		return j.owner == s
	}
	return !s.partial
}

// addGetters adds the servers that a source has named as getting the version.
func (p *pull) addGetters(names string) {
	for _, s := range p.named(names, maxGetters) {
		s.partial = true
		p.addPeer(s)
	}
}

// findGetters asks a source which servers are getting the version. The answer with trees has them in its header, but
// this server does not ask for trees if it has them all.
func (p *pull) findGetters(ctx context.Context, needs []*need) {
	if len(p.trees) > 0 || !worthExchanging(needs) {
		return
	}
	for _, s := range p.sources() {
		a, err := p.ask(ctx, s, treesPath, request{of: p.v.Digest, from: noTrees})
		if err == nil {
			a.drain() // so that the connection is used again
			a.close()
			return
		}
	}
}

// openBlob opens a blob of the store, or one that has arrived and is not in the store yet. Errors may be
// store.ErrNotFound.
func (p *Puller) openBlob(d image.Digest) (*os.File, error) {
	f, err := p.store.OpenBlob(d)
	if !errors.Is(err, store.ErrNotFound) {
		return f, err
	}
	if b := p.arrivedIn(d); b != nil {
		if f, err := b.OpenBlob(d); !errors.Is(err, store.ErrNotFound) {
			return f, err
		}
	}
	return p.store.OpenBlob(d) // its batch was committed meanwhile
}

func (p *Puller) arrivedIn(d image.Digest) *store.Batch {
	now := p.current()
	if now == nil {
		return nil
	}
	now.mu.Lock()
	defer now.mu.Unlock()
	if n := now.needed[d]; n != nil {
		return n.batch
	}
	return nil
}

func (p *Puller) current() *pull {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// expectation is what a server may tell of blobs that another one asks for.
type expectation struct {
	begun    bool            // the version is being pulled
	coming   bool            // one of the blobs is still to come
	progress uint64          // bytes of the version that have arrived
	news     <-chan struct{} // closed when something arrives
}

// expect tells whether blobs are still to come with a version.
func (p *Puller) expect(version image.Digest, blobs []image.Digest) (e expectation) {
	now := p.current()
	if now == nil || now.v.Digest != version {
		return e
	}
	now.mu.Lock()
	defer now.mu.Unlock()
	e = expectation{begun: true, progress: now.all.bytes - min(now.left.bytes, now.all.bytes), news: now.news}
	if !now.planned {
		e.coming = true
		return e
	}
	for _, d := range blobs {
		n := now.needed[d]
		e.coming = e.coming || n != nil && n.batch == nil && now.err == nil
	}
	return e
}

// noteArrived notes that a blob has arrived in a batch. It returns false if it had arrived before.
func (p *pull) noteArrived(n *need, b *store.Batch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.batch != nil {
		return false
	}
	n.batch = b
	return true
}

// wakeWaiting wakes those who wait for blobs.
func (p *pull) wakeWaiting() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.news)
	p.news = make(chan struct{})
}

// await returns when this server has the blobs that are asked for, or when they are not coming. Meanwhile it sends the
// records that let the asker wait.
func (h *Handler) await(r *http.Request, blobs []image.Digest, to *timed) error {
	version, err := image.ParseDigest(r.Header.Get(partsHeader))
	if err != nil || h.puller == nil {
		return nil // the asker does not know that this server may lack something
	}
	began := time.Now()
	t := time.NewTicker(pendingInterval)
	defer t.Stop()
	for {
		e := h.puller.expect(version, blobs)
		if !e.coming && (e.begun || h.hasAll(blobs) || time.Since(began) > notBegun) {
			return nil
		}
		select {
		case <-e.news: // nil, which blocks, if nothing is begun
		case <-t.C:
			_, err := h.pack(to, func(w *writer) error { w.kind(kindPending, e.progress); return nil })
			if err != nil {
				return err
			}
			_ = to.c.Flush()
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

func (h *Handler) hasAll(blobs []image.Digest) bool {
	return !slices.ContainsFunc(blobs, func(d image.Digest) bool { return !h.store.HasBlob(d) })
}

// pending is what a source that is getting a version itself has told of its progress in an answer. It is guarded by
// pull.mu.
type pending struct {
	records  int
	progress uint64
	began    time.Time // when it let this server wait first; zero: it has not, or what was waited for has come
	since    time.Time // when it made progress; zero: the answer is under way
}

const (
	// waitAtMost and waitTimes bound how long a server lets this one wait for what it is getting: waitAtMost more than
	// waitTimes what a source with the whole version would take. One that only pretends to make progress would delay a
	// pull by maxPending records otherwise.
	waitAtMost = 30 * time.Second
	waitTimes  = 4
)

// tooLong reports whether a server has let this one wait for too long. rate is what arrives from the best source that
// has the whole version, in bytes a second; 0: not known.
func (w *pending) tooLong(size uint64, rate float64) bool {
	most := waitAtMost
	switch {
	case w.began.IsZero():
		return false
	case rate > 0:
		most += waitTimes * time.Duration(float64(size)/rate*float64(time.Second))
	default:
		most *= waitTimes
	}
	return time.Since(w.began) > most
}

// noteProgress notes a record that lets this server wait.
func (a *answer) noteProgress(progress uint64) error {
	a.pull.mu.Lock()
	defer a.pull.mu.Unlock()
	w := &a.waits
	if w.records++; w.records > maxPending {
		return refusef("%d times that it is getting what was asked for", w.records)
	}
	if w.began.IsZero() {
		w.began = time.Now()
	}
	if progress > w.progress || w.since.IsZero() {
		// What comes later is not late because of this, and its rate begins to count now.
		w.progress, w.since, a.started = progress, time.Now(), time.Now()
	}
	return nil
}

// resumed notes that the answer goes on after such records.
func (a *answer) resumed() {
	a.pull.mu.Lock()
	defer a.pull.mu.Unlock()
	a.waits.since, a.waits.began = time.Time{}, time.Time{}
}

// setPartsHeader sets the header of a request to a source that may not have all yet.
func (p *pull) setPartsHeader(s *peer, r *http.Request) {
	if s.partial {
		r.Header.Set(partsHeader, p.v.Digest.String())
	}
}

// named returns the sources with names that a source has sent.
func (p *pull) named(names string, most int) (list []*peer) {
	if p.o.named == nil || names == "" || len(names) > 4<<10 {
		return nil
	}
	var sources []Source
	for _, name := range strings.SplitN(names, ",", most+1) {
		if s, ok := p.o.named(name); ok {
			sources = append(sources, s)
		}
	}
	return p.o.ledger.usable(sources)
}

// addPeer adds a source, unless it is known or all is planned.
func (p *pull) addPeer(s *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.planned && !slices.ContainsFunc(p.peers, func(known *peer) bool { return known.Name == s.Name }) {
		p.peers = append(p.peers, s)
	}
}

// maxRelayed is the size, in bytes, of the largest packed answer that is kept for other servers.
const maxRelayed = 2 * sharedFile

// keep keeps packed bytes.
func (a *answer) keep(b []byte) {
	if a.kept.Len()+len(b) > maxRelayed {
		a.kept = nil
		return
	}
	a.kept.Write(b)
}

// relay keeps a packed answer, of which all was right, for other servers that will ask for the same.
func (a *answer) relay(path string, r request) {
	if a == nil || !a.ended || a.kept == nil {
		return
	}
	a.pull.o.packed.keep(image.Sum(append([]byte(path), r.encode()...)), a.kept.Bytes())
}
