// Server is a bare NFS server for nfsload: plain directories, or, with -floor, a tree whose answers are
// constant, which shows the cost of oncrpc and nfs alone.
//
//	server -listen 127.0.0.1:2049 -export /tree=/srv/tree
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
)

// exports are directories by path. The first bytes of a handle are those of the root of its tree.
type exports struct {
	byPath map[string]vfs.FS
	all    []vfs.FS
}

func (e *exports) Client(nfs.Peer) (nfs.Client, error) { return e, nil }
func (e *exports) Current() bool                       { return true }

func (e *exports) Mount(_ context.Context, path string) (vfs.FS, error) {
	if fs, ok := e.byPath[path]; ok {
		return fs, nil
	}
	return nil, vfs.ENOENT
}

func (e *exports) Find(h vfs.Handle) (nfs.Export, error) {
	if len(e.all) == 1 {
		return nfs.Export{FS: e.all[0]}, nil
	}
	var a vfs.Attr
	for _, fs := range e.all {
		if fs.Attr(h, &a) != vfs.EBADHANDLE {
			return nfs.Export{FS: fs}, nil
		}
	}
	return nfs.Export{}, vfs.EBADHANDLE
}

func (e *exports) Paths() (paths []string) {
	for p := range e.byPath {
		paths = append(paths, p)
	}
	return paths
}

func (e *exports) Set(arg string) error {
	path, dir, ok := strings.Cut(arg, "=")
	if !ok {
		return fmt.Errorf("want PATH=DIRECTORY")
	}
	fs, err := dirfs.Open(dir, dirfs.Options{})
	if err != nil {
		return err
	}
	e.add(path, fs)
	return nil
}

func (e *exports) add(path string, fs vfs.FS) {
	e.byPath[path] = fs
	e.all = append(e.all, fs)
}

func (e *exports) String() string { return "" }

func main() {
	e := &exports{byPath: make(map[string]vfs.FS)}
	listen := flag.String("listen", "127.0.0.1:2049", "address and port")
	floor := flag.Bool("floor", false, "serve constant answers at /tree")
	pprof := flag.String("pprof", "", "address for profiles")
	flag.Var(e, "export", "PATH=DIRECTORY, may be repeated")
	flag.Parse()
	if *floor {
		e.add("/tree", constant{})
	}
	if *pprof != "" {
		go http.ListenAndServe(*pprof, nil)
	}
	if err := serve(*listen, e); err != nil {
		fmt.Fprintf(os.Stderr, "server: %v\n", err)
		os.Exit(1)
	}
}

func serve(addr string, e *exports) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	fmt.Println(ln.Addr())
	return oncrpc.NewServer(oncrpc.Options{}, nfs.New(e, nfs.Options{}).Programs()...).Serve(ctx, ln)
}
