package bootload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"dim/internal/dhcp"
	"dim/internal/testkit"
	"dim/internal/tftp"
)

func TestABootReadsAsManyBytesAsARealOne(t *testing.T) {
	var all []File
	for i := range 5000 {
		all = append(all, File{Path: fmt.Sprintf("f%04d", i), Size: int64(i * 97 % 400_000)})
	}
	all = append(all, File{Path: "huge", Size: 1 << 30}, File{Path: "empty"})
	Shuffle(all, 7)
	files := Sample(all)
	var total int64
	for _, f := range files {
		if f.Path == "huge" || f.Path == "empty" {
			t.Errorf("%s is in the sample", f.Path)
		}
		total += f.Size
	}
	if len(files) < maxFiles/2 || total < bootBytes || total > bootBytes+fileLimit {
		t.Errorf("%d files with %d bytes", len(files), total)
	}
}

func TestWrongBytesAreAnError(t *testing.T) {
	content := []byte("the bytes of a file")
	right := File{Size: int64(len(content)), Digest: sum(content)}
	for _, tt := range []struct {
		name string
		got  []byte
		want error
	}{
		{"right", content, nil},
		{"one bit", append([]byte("THE"), content[3:]...), ErrWrongBytes},
		{"too much", append([]byte("x"), content...), ErrWrongBytes},
		{"cut", content[:4], nil}, // the error of the read says so
	} {
		w, err := Verify(right)
		testkit.Must(t, err)
		for _, b := range tt.got {
			_, err := w.Write([]byte{b})
			testkit.Must(t, err)
		}
		if err := w.Close(); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func sum(b []byte) (d [32]byte) {
	w, _ := Verify(File{})
	_, _ = w.Write(b)
	return [32]byte(w.(*verifier).Sum(nil))
}

// memory is a file of TFTP.
type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// The servers are the real ones.
func TestALoaderComesByTFTP(t *testing.T) {
	files := map[string][]byte{
		"empty": {}, "odd": bytes.Repeat([]byte("o"), 3*tftpBlock+17), "even": bytes.Repeat([]byte("e"), 2*tftpBlock),
	}
	listen := func(net.Addr) (net.PacketConn, error) { return net.ListenPacket("udp4", "127.0.0.1:0") }
	s := &tftp.Server{
		Open: func(_ context.Context, _ netip.AddrPort, name string) (tftp.File, error) {
			b, ok := files[name]
			if !ok {
				return nil, fs.ErrNotExist
			}
			return memory{bytes.NewReader(b)}, nil
		},
		Known: func(netip.AddrPort) bool { return true }, ListenPacket: listen, Log: slog.New(slog.DiscardHandler),
	}
	conn := testkit.Value(listen(nil))(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	defer func() {
		cancel()
		testkit.Must(t, <-done, conn.Close())
	}()
	fetch := func(name string) ([]byte, error) {
		own := testkit.Value(listen(nil))(t)
		defer own.Close()
		var got bytes.Buffer
		err := FetchTFTP(t.Context(), own, netip.MustParseAddrPort(conn.LocalAddr().String()), name, &got)
		return got.Bytes(), err
	}
	for name, want := range files {
		if got, err := fetch(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := fetch("none"); err == nil {
		t.Error("a file that is not there comes")
	}
}

func TestATransferEndsWithItsContext(t *testing.T) {
	silent := testkit.Value(net.ListenPacket("udp4", "127.0.0.1:0"))(t)
	defer silent.Close()
	own := testkit.Value(net.ListenPacket("udp4", "127.0.0.1:0"))(t)
	defer own.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _, _ = silent.ReadFrom(make([]byte, 600)) // it has asked
		cancel()
	}()
	err := FetchTFTP(ctx, own, netip.MustParseAddrPort(silent.LocalAddr().String()), "x", io.Discard)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A server on another port than 67 answers a relay on port 67 of the relay's address.
func TestMachinesGetTheirBootFileByDHCP(t *testing.T) {
	testkit.NeedRoot(t, "it listens on port 67")
	at, err := net.ListenPacket("udp4", "127.83.200.1:67")
	testkit.Must(t, err)
	server := testkit.Value(net.ListenPacket("udp4", "127.83.200.2:0"))(t)
	s := &dhcp.Server{
		Log: slog.New(slog.DiscardHandler),
		Answer: func(r *dhcp.Request) (dhcp.Lease, error) {
			if r.MAC[5] == 9 {
				return dhcp.Lease{}, errors.New("another client")
			}
			return dhcp.Lease{
				Address: netip.AddrFrom4([4]byte{198, 18, 0, r.MAC[5]}), Subnet: netip.MustParsePrefix("198.18.0.0/15"),
				Server: netip.MustParseAddr("127.83.200.2"), BootFile: fmt.Sprint(r.Archs, r.MAC[5]),
			}, nil
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, server) }()
	r := NewRelay(at, netip.MustParseAddrPort(server.LocalAddr().String()))
	for i := range byte(8) {
		file, err := r.Boot(t.Context(), net.HardwareAddr{2, 0, 0, 0, 0, i})
		if want := fmt.Sprint([]int{7}, i); err != nil || file != want {
			t.Errorf("machine %d: %q, %v; want %q", i, file, err, want)
		}
	}
	short, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	if _, err := r.Boot(short, net.HardwareAddr{2, 0, 0, 0, 0, 9}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a machine that is not answered: %v", err)
	}
	testkit.Must(t, r.Close())
	cancel()
	testkit.Must(t, <-done, server.Close())
}
