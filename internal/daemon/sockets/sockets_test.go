package sockets

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

func TestOnlyAMissingAddressIsWaitedFor(t *testing.T) {
	taken := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	port := netip.MustParseAddrPort(taken.Addr().String()).Port()
	missing := &cluster.Interface{Address: netip.MustParseAddr("192.0.2.1")} // of no machine (RFC 5737)
	log := slog.New(slog.DiscardHandler)

	begin := time.Now()
	s := &cluster.Server{Name: "head", Interfaces: []*cluster.Interface{missing}, Ports: cluster.Ports{NFS: port}}
	_, err := Open(t.Context(), s, time.Hour, log)
	if !errors.Is(err, unix.EADDRINUSE) || !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("a taken port and a missing address: %v", err)
	}
	s.Ports.NFS = 0
	_, err = Open(t.Context(), s, time.Millisecond, log)
	if !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "no interface here has it") {
		t.Errorf("a missing address: %v", err)
	}
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}
