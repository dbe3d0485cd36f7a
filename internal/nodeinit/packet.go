package nodeinit

import "encoding/binary"

// The ports of DHCP (RFC 2131 section 4.1).
const (
	serverPort = 67
	clientPort = 68
)

const (
	ipHeader  = 20
	udpHeader = 8
	protoUDP  = 17
)

// broadcast wraps a payload in UDP and IP, from 0.0.0.0 to the broadcast address. It has no UDP checksum, as RFC 768
// allows.
func broadcast(payload []byte) []byte {
	p := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(payload))
	p[0] = 4<<4 | ipHeader/4
	binary.BigEndian.PutUint16(p[2:], uint16(ipHeader+udpHeader+len(payload)))
	p[8] = 64 // time to live
	p[9] = protoUDP
	copy(p[16:20], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(p[10:], checksum(p[:ipHeader]))
	udp := p[ipHeader:]
	binary.BigEndian.PutUint16(udp[0:], clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(payload)))
	return append(p, payload...)
}

// udpPayload returns the payload of an IP packet to a UDP port, or nil if it is anything else or a fragment. The UDP
// checksum is ignored: between virtual machines it is not filled in.
func udpPayload(p []byte, port uint16) []byte {
	if len(p) < ipHeader || p[0]>>4 != 4 || p[9] != protoUDP {
		return nil
	}
	head, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	fragment := binary.BigEndian.Uint16(p[6:])&0x3fff != 0
	if head < ipHeader || total > len(p) || total < head+udpHeader || fragment {
		return nil
	}
	udp := p[head:total]
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[2:]) != port || size < udpHeader || size > len(udp) {
		return nil
	}
	return udp[udpHeader:size]
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
