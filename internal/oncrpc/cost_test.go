package oncrpc_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/meter"
	"dim/internal/nfs"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// BenchmarkCounting measures what counting adds to the CPU time of a whole call, from the socket and back to it.
// One server answers the same calls in turns with and without counting: GETATTR, LOOKUP and ACCESS of a tree with
// constant answers. No real call costs less, so counting is a smaller part of real calls. The CPU time of the
// client, which has a thread of its own, is subtracted. A round is 200 batches. The tenth of the rounds with the
// least cost is compared, because other programs on the machine make the rest cost more.
func BenchmarkCounting(b *testing.B) {
	for _, batch := range []int{1, 8} {
		b.Run(fmt.Sprintf("inflight=%d", batch), func(b *testing.B) { benchCounting(b, batch) })
	}
}

func benchCounting(b *testing.B, batch int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := newSide(b, batch)
	round := func(count bool) float64 {
		s.srv.Count(count)
		s.tree.counts.Store(count)
		return s.round(b)
	}
	var with, without []float64
	for i := 0; b.Loop(); i++ {
		first := i%2 == 0
		x, y := round(first), round(!first)
		if !first {
			x, y = y, x
		}
		with, without = append(with, x), append(without, y)
	}
	on, off := least(with), least(without)
	b.ReportMetric(on, "ns/call")
	b.ReportMetric(off, "ns/call-uncounted")
	b.ReportMetric(on-off, "ns/counting")
	b.ReportMetric(100*(on-off)/off, "%")
	b.ReportMetric(0, "ns/op")
}

// least is the average of the least tenth of list.
func least(list []float64) float64 {
	slices.Sort(list)
	list = list[:len(list)/10+1]
	sum := 0.0
	for _, v := range list {
		sum += v
	}
	return sum / float64(len(list))
}

// side is a server with one client. The socket of the client is not watched by Go, so that the CPU time of the
// thread is all that the client costs.
type side struct {
	srv   *oncrpc.Server
	tree  *still
	fd    int
	calls [3][]byte // batches, each of which begins with another kind of call
	room  []byte
	n     int // calls in a batch
}

func newSide(b *testing.B, batch int) *side {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	tree := &still{meter: &meter.Meter{Counts: new(meter.Counts), Class: 1}}
	srv := oncrpc.NewServer(oncrpc.Options{}, nfs.New(tree, nfs.Options{}).Programs()...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		unix.Close(fd)
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	addr := ln.Addr().(*net.TCPAddr)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: addr.AddrPort().Addr().As4()}); err != nil {
		b.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	s := &side{srv: srv, tree: tree, fd: fd, n: batch, room: make([]byte, 16<<10)}
	for first := range s.calls {
		for i := range batch {
			s.calls[first] = append(s.calls[first], stillCall((first+i)%3)...)
		}
	}
	for first := range s.calls {
		s.exchange(b, s.calls[first])
	}
	return s
}

// round returns the CPU time that the server takes for a call, in nanoseconds.
func (s *side) round(b *testing.B) float64 {
	const batches = 200
	all, own := cpuTime(b, unix.RUSAGE_SELF), cpuTime(b, unix.RUSAGE_THREAD)
	for i := range batches {
		s.exchange(b, s.calls[i%3])
	}
	all, own = cpuTime(b, unix.RUSAGE_SELF)-all, cpuTime(b, unix.RUSAGE_THREAD)-own
	return float64((all - own).Nanoseconds()) / float64(batches*s.n)
}

// exchange sends a batch and waits for its replies, which must be successes.
func (s *side) exchange(b *testing.B, calls []byte) {
	if _, err := unix.Write(s.fd, calls); err != nil {
		b.Fatal(err)
	}
	have, at := 0, 0
	for range s.n {
		for have < at+4 || have < at+4+int(binary.BigEndian.Uint32(s.room[at:])&^(1<<31)) {
			n, err := unix.Read(s.fd, s.room[have:])
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				b.Fatalf("read: %d bytes, %v", n, err)
			}
			have += n
		}
		reply := s.room[at+4:]
		accepted, status := binary.BigEndian.Uint32(reply[20:]), binary.BigEndian.Uint32(reply[24:])
		if accepted != 0 || status != 0 {
			b.Fatalf("accept_stat %d, nfsstat3 %d", accepted, status)
		}
		at += 4 + int(binary.BigEndian.Uint32(s.room[at:])&^(1<<31))
	}
}

func cpuTime(b *testing.B, who int) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stillCall is the record of a GETATTR (0), LOOKUP (1) or ACCESS (2) by root.
func stillCall(kind int) []byte {
	e := oncrpc.NewEncoder(nil)
	proc := []uint32{1, 3, 4}[kind]
	for _, v := range []uint32{0, 1, 0, 2, 100003, 3, proc, oncrpc.AuthSys, 20, 0, 0, 0, 0, 0, 0, 0} {
		e.Uint32(v)
	}
	h := stillHandle()
	e.Opaque(h.Bytes())
	switch kind {
	case 1:
		e.String("libc.so.6")
	case 2:
		e.Uint32(0x3f)
	}
	binary.BigEndian.PutUint32(e.Bytes(), uint32(e.Len()-4)|1<<31)
	return e.Bytes()
}

// still is the only export and its only file. Every name in it leads to that file.
type still struct {
	vfs.FS
	meter *meter.Meter

	counts atomic.Bool // Find returns the meter
}

func stillHandle() vfs.Handle {
	h, _ := vfs.MakeHandle(make([]byte, 32))
	return h
}

func (s *still) Client(nfs.Peer) (nfs.Client, error)           { return s, nil }
func (s *still) Current() bool                                 { return true }
func (s *still) Mount(context.Context, string) (vfs.FS, error) { return s, nil }
func (s *still) Paths() []string                               { return nil }

func (s *still) Find(h vfs.Handle) (nfs.Export, error) {
	x := nfs.Export{FS: s}
	if s.counts.Load() {
		x.Meter = s.meter
	}
	return x, nil
}

func (*still) Attr(_ vfs.Handle, a *vfs.Attr) error {
	*a = vfs.Attr{Type: vfs.Regular, Mode: 0o644, Nlink: 1, Size: 1 << 30, ID: 2, FSID: 1}
	return nil
}

func (s *still) Access(_ *vfs.Cred, h vfs.Handle, want uint32, a *vfs.Attr) (uint32, error) {
	return want, s.Attr(h, a)
}

func (s *still) Lookup(_ *vfs.Cred, dir vfs.Handle, _ string, a *vfs.Attr) (vfs.Handle, error) {
	return dir, s.Attr(dir, a)
}
