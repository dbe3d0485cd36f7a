package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"dim/internal/caller"
	"dim/internal/cluster"
)

// maxReport bounds the body of a stage report.
const maxReport = 4 << 10

// Handler returns the HTTP service of the boot, all under /boot/. A caller is the node whose address it calls from, and others get
// nothing; this machine may name the node with ?node=NAME, to see what that one would get.
func (b *Boot) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot/ipxe", b.node(b.serveScript))
	mux.HandleFunc("GET /boot/loader/{name...}", b.node(b.serveLoader))
	mux.HandleFunc("GET /boot/kernel/{digest}", b.node(b.serveAsset("kernel")))
	mux.HandleFunc("GET /boot/initramfs/{digest}", b.node(b.serveAsset("initramfs")))
	mux.HandleFunc("POST /boot/stage", b.node(b.takeReports))
	mux.HandleFunc("/boot/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "there is nothing of that name here: "+plain(r.URL.Path), http.StatusNotFound)
	})
	return mux
}

// node finds out which node calls, and refuses others in plain words.
func (b *Boot) node(next func(http.ResponseWriter, *http.Request, place)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := b.caller(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next(w, r, p)
	}
}

// caller returns the node that calls.
func (b *Boot) caller(r *http.Request) (place, error) {
	peer, err := caller.OfRequest(r)
	if err != nil {
		return place{}, err
	}
	who, _ := caller.Resolve(b.Cluster(), peer)
	p, err := b.nodeOf(who)
	p.superuser = who.Superuser
	if err == nil || !who.Local {
		return p, err
	}
	n, ok := b.Cluster().Node(cluster.NodeName(r.URL.Query().Get("node")))
	if !ok {
		return place{}, errors.New("say which node with ?node=NAME: this call comes from the server itself")
	}
	p, err = b.at(n, n.Boot())
	p.onlooker, p.superuser = true, who.Superuser
	return p, err
}

func (b *Boot) serveScript(w http.ResponseWriter, r *http.Request, p place) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, b.script(r.Context(), p))
}

func (b *Boot) serveLoader(w http.ResponseWriter, r *http.Request, p place) {
	f, fi, err := b.openLoader(r.PathValue("name"))
	if err != nil {
		b.refuse(w, err)
		return
	}
	defer f.Close()
	b.reached(p, StageLoader, r.PathValue("name")+" by HTTP")
	w.Header().Set("Content-Type", "application/efi") // UEFI 2.10 section 24.7.3.1
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

func (b *Boot) serveAsset(kind string) func(http.ResponseWriter, *http.Request, place) {
	return func(w http.ResponseWriter, r *http.Request, p place) {
		a, err := b.asset(r.Context(), p, kind, r.PathValue("digest"))
		if err != nil {
			b.refuse(w, err)
			return
		}
		f, err := a.Open()
		if err != nil {
			b.refuse(w, err)
			return
		}
		defer f.Close()
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Etag", `"`+a.Digest.String()+`"`)
		h.Set("Cache-Control", "max-age=31536000, immutable") // the name is the digest
		http.ServeContent(w, r, "", time.Time{}, f)
	}
}

// refuse answers with what an error means to the caller; what does not concern him goes to the log.
func (b *Boot) refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "there is no such file here (any more): fetch the boot script anew", http.StatusNotFound)
		return
	}
	b.Log.Error("boot file not served", "err", err)
	http.Error(w, "the server cannot read the file; its log says why", http.StatusServiceUnavailable)
}

// report is one stage report of dim-init.
type report struct {
	Stage  Stage   `json:"stage"`
	Detail string  `json:"detail"`
	Error  string  `json:"error"`
	Ago    float64 `json:"ago"` // seconds
}

func (b *Boot) takeReports(w http.ResponseWriter, r *http.Request, p place) {
	if !p.superuser {
		http.Error(w, "reports are taken from ports below 1024 alone, which the superuser has", http.StatusForbidden)
		return
	}
	reports, err := parseReports(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := b.Tracker.now()
	for _, x := range reports {
		at := now.Add(-time.Duration(x.Ago * float64(time.Second)))
		b.note(p, Event{Stage: x.Stage, Time: at, Detail: x.Detail, Error: x.Error})
		if x.Error != "" {
			b.Log.Warn("node is held up", "node", p.node.Name, "stage", x.Stage, "err", words(x.Error))
			continue
		}
		b.Log.Info("node boots", "node", p.node.Name, "stage", x.Stage, "detail", words(x.Detail))
	}
	w.WriteHeader(http.StatusNoContent)
}

// parseReports decodes JSON objects, one after the other.
func parseReports(body io.Reader) ([]report, error) {
	var out []report
	for d := json.NewDecoder(body); ; {
		var x report
		err := d.Decode(&x)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse stage report: %w", err)
		}
		switch x.Stage {
		case StageInitramfs, StageLink, StageAddress, StageMount, StageHandover:
		default:
			return nil, fmt.Errorf("parse stage report: %q is no stage that a node reports", words(string(x.Stage)))
		}
		if !(x.Ago >= 0 && x.Ago <= 3600) { // also when it is no number
			x.Ago = 0
		}
		out = append(out, x)
	}
}
