package delivery

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"time"

	"dim/internal/boot"
	"dim/internal/caller"
	"dim/internal/cluster"
)

// maxReport bounds the body of a stage report.
const maxReport = 4 << 10

// Handler returns the HTTP service, all under /boot/. A caller is the node whose address it calls from, and others get
// nothing. This machine and the heads may name a node with ?node=NAME, to see what that one would get.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot/ipxe", s.node(s.bootFile(s.serveScript)))
	mux.HandleFunc("GET /boot/loader/{name...}", s.node(s.bootFile(s.serveLoader)))
	mux.HandleFunc("GET /boot/kernel/{digest}", s.node(s.bootFile(s.serveAsset("kernel"))))
	mux.HandleFunc("GET /boot/initramfs/{digest}", s.node(s.bootFile(s.serveAsset("initramfs"))))
	mux.HandleFunc("POST /boot/stage", s.node(s.takeReports))
	mux.HandleFunc("/boot/", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "there is nothing of that name here: "+printableText(r.URL.Path), http.StatusNotFound)
	})
	return mux
}

// nodeHandler answers a request on behalf of a node.
type nodeHandler func(http.ResponseWriter, *http.Request, *requester)

// bootFile makes a handler of boot files: it finds out first whether it is the node's boot that asks. HEAD fetches
// nothing: firmware asks for the size before it fetches a file.
func (s *Server) bootFile(next nodeHandler) nodeHandler {
	return func(w http.ResponseWriter, r *http.Request, node *requester) {
		node.observer = node.observer || r.Method == http.MethodHead
		s.findObserver(r.Context(), node)
		next(w, r, node)
	}
}

// node finds out which node calls, and refuses others in plain words.
func (s *Server) node(next nodeHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		node, err := s.caller(r)
		if err != nil {
			s.noteRefusal(&node, "HTTP", err)
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		next(w, r, &node)
	}
}

// caller returns the node that calls.
func (s *Server) caller(r *http.Request) (requester, error) {
	peer, err := caller.OfRequest(r)
	if err != nil {
		return requester{}, err
	}
	who, _ := caller.Resolve(s.Policy.Cluster(), peer)
	node, err := s.requester(who)
	if err == nil || !who.Local && !s.isHead(who) {
		return node, err
	}
	n, ok := s.Policy.Cluster().Node(cluster.NodeName(r.URL.Query().Get("node")))
	if !ok {
		return requester{}, errors.New("say which node with ?node=NAME: this call comes from the server itself")
	}
	t, err := s.Policy.Target(n, n.Boot())
	return requester{Target: t, observer: true, superuser: who.Superuser}, err
}

// isHead reports whether the superuser of another head calls.
func (s *Server) isHead(who caller.Caller) bool {
	return who.Superuser && who.Server != nil && slices.Contains(who.Server.Roles, cluster.RoleHead)
}

// serveScript serves the boot script. There is always one: for a node that cannot boot, one that says why.
func (s *Server) serveScript(w http.ResponseWriter, r *http.Request, node *requester) {
	line, p, err := s.begin(r.Context(), node, "")
	script := ""
	if err != nil {
		script = node.ErrorScript(err)
	} else {
		script = node.Script(line, p.Kernel.Digest, p.Initramfs.Digest)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(script)))
	io.WriteString(w, script)
}

func (s *Server) serveLoader(w http.ResponseWriter, r *http.Request, node *requester) {
	f, fi, err := s.Loaders.open(r.PathValue("name"))
	if err != nil {
		s.refuse(w, node, err)
		return
	}
	defer f.Close()
	s.report(node, boot.Event{Stage: boot.StageLoader, Detail: r.PathValue("name") + " by HTTP"})
	w.Header().Set("Content-Type", "application/efi") // UEFI 2.10 section 24.7.3.1
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

func (s *Server) serveAsset(kind string) nodeHandler {
	return func(w http.ResponseWriter, r *http.Request, node *requester) {
		a, err := s.asset(r.Context(), node, kind, r.PathValue("digest"))
		if err != nil {
			s.refuse(w, node, err)
			return
		}
		f, err := a.Open()
		if err != nil {
			s.refuse(w, node, err)
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

// refuse answers with what an error means to the caller; the cause goes to the log.
func (s *Server) refuse(w http.ResponseWriter, node *requester, err error) {
	s.noteRefusal(node, "HTTP", err)
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "there is no such file here (any more): fetch the boot script anew", http.StatusNotFound)
		return
	}
	s.Log.Error("boot file not served", "error", err)
	http.Error(w, "the server cannot read the file; its log says why", http.StatusServiceUnavailable)
}

// report is one stage report of dim-init.
type report struct {
	Stage  boot.Stage `json:"stage"`
	Detail string     `json:"detail"`
	Error  string     `json:"error"`
	Ago    float64    `json:"ago"` // seconds
}

func (s *Server) takeReports(w http.ResponseWriter, r *http.Request, node *requester) {
	if !node.superuser {
		http.Error(w, "reports are taken from ports below 1024 alone, which the superuser has", http.StatusForbidden)
		return
	}
	reports, err := parseReports(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := time.Now()
	for _, x := range reports {
		at := now.Add(-time.Duration(x.Ago * float64(time.Second)))
		e := printable(boot.Event{Stage: x.Stage, Time: at, Detail: x.Detail, Error: x.Error})
		s.report(node, e)
		if e.Error != "" {
			s.Log.Warn("node is held up", "node", node.Node.Name, "stage", e.Stage, "error", e.Error)
			continue
		}
		s.Log.Info("node boots", "node", node.Node.Name, "stage", e.Stage, "detail", e.Detail)
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
		case boot.StageInitramfs, boot.StageLink, boot.StageAddress, boot.StageMount, boot.StageHandover:
		default:
			return nil, fmt.Errorf("parse stage report: %q is no stage that a node reports",
				printableText(string(x.Stage)))
		}
		if !(x.Ago >= 0 && x.Ago <= 3600) { // also when it is no number
			x.Ago = 0
		}
		out = append(out, x)
	}
}
