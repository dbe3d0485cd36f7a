package nfs_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"dim/internal/nfs"
	"dim/internal/nfs/nfsclient"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// guarded believes calls from ports below 1024 and from one address.
type guarded struct {
	trees
	trusted netip.Addr
}

func (g guarded) Client(p nfs.Peer) (nfs.Client, error) {
	if p.Remote.Port() >= 1024 && p.Remote.Addr() != g.trusted {
		return nil, errors.New("any user may have this port")
	}
	return g.trees, nil
}

func dialFrom(t *testing.T, addr, local string, port int) *nfsclient.Client {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local), Port: port}}
	nc, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil
	}
	c := nfsclient.NewClient(nc)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCallsFromOrdinaryPortsAreRefusedAndCounted(t *testing.T) {
	const trusting = "127.0.0.5"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log logged
	e := guarded{trees{"/export": directory(t, t.TempDir())}, netip.MustParseAddr(trusting)}
	srv := nfs.New(e, nfs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- oncrpc.NewServer(oncrpc.Options{}, srv.Programs()...).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	addr := ln.Addr().String()

	root := e.trees["/export"].Root()
	high := dialFrom(t, addr, "127.0.0.1", 0)
	_, mounting := high.Mount("/export")
	for what, err := range map[string]error{"mount": mounting, "call": high.TreeAt(root).Attr(root, &vfs.Attr{})} {
		var rpc *nfsclient.RPCError
		if !errors.As(err, &rpc) || !rpc.Denied {
			t.Errorf("%s from a high port: %v", what, err)
		}
	}
	if err := high.Null(nfsclient.ProgramNFS); err != nil {
		t.Errorf("NULL is for every client: %v", err)
	}
	if _, err := dialFrom(t, addr, trusting, 0).Mount("/export"); err != nil {
		t.Errorf("from a trusted network: %v", err)
	}
	if n := srv.Refused(); n != (nfs.Refusals{Port: 2}) {
		t.Errorf("counted %+v", n)
	}
	got, want := log.String(), "reason=port client="+high.LocalAddr().String()+" count=1"
	if !strings.Contains(got, want) || strings.Count(got, "call refused") > 2 {
		t.Errorf("the log:\n%s", got)
	}
	low := fromLowPort(t, addr)
	if _, err := low.Mount("/export"); err != nil {
		t.Errorf("from a privileged port: %v", err)
	}
}

func fromLowPort(t *testing.T, addr string) *nfsclient.Client {
	t.Helper()
	for port := 1023; port > 700; port-- {
		if c := dialFrom(t, addr, "127.0.0.1", port); c != nil {
			return c
		}
	}
	t.Skip("needs root: no port below 1024 could be had")
	return nil
}
