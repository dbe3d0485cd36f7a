package sysfile

import (
	"net"
	"testing"

	"dim/internal/testkit"
)

func TestDroppedMessagesAreCounted(t *testing.T) {
	at := testkit.Value(net.ResolveUDPAddr("udp4", "127.0.0.1:0"))(t)
	in := testkit.Value(net.ListenUDP("udp4", at))(t)
	defer in.Close()
	if n := testkit.Value(UDPDrops(in))(t); n != 0 {
		t.Fatalf("a new socket has dropped %d messages", n)
	}
	testkit.Must(t, in.SetReadBuffer(1)) // the kernel's minimum, some 2 kB
	out := testkit.Value(net.Dial("udp4", in.LocalAddr().String()))(t)
	defer out.Close()
	const sent = 100
	for range sent {
		testkit.Value(out.Write(make([]byte, 1000)))(t)
	}
	// Over loopback a message has arrived, or is dropped, when Write returns.
	dropped := int(testkit.Value(UDPDrops(in))(t))
	if dropped == 0 || dropped >= sent {
		t.Fatalf("%d of %d messages were dropped", dropped, sent)
	}
	for buf := make([]byte, 2000); dropped < sent; dropped++ {
		testkit.Value(in.Read(buf))(t) // it blocks if one of those that were not dropped is not there
	}
	in.Close()
	if _, err := UDPDrops(in); err == nil {
		t.Error("a closed socket has drops")
	}
}
