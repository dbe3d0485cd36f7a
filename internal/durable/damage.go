package durable

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// sectorSize is what a disk writes as a whole, or not at all, when the power goes. Larger sectors are multiples of it.
const sectorSize = 512

// incomplete reports whether a crash during an append can have left b, which is at an offset, at the end of a file: b
// is shorter than its length says, or some of its sectors were never written. These have zeros: the file ended before
// them, and the file system may have made its new size durable before its content.
//
// A sector that has only the first bytes of a length does not count if the length is right. Its zeros may be those of
// the record.
func incomplete(b []byte, at int64) bool {
	if len(b) < recordHeader {
		return true
	}
	n := int64(binary.BigEndian.Uint32(b))
	if n <= maxRecord && n > int64(len(b)-recordHeader) {
		return true
	}
	right := n == int64(len(b)-recordHeader)
	for from := 0; from < len(b); {
		size := min(sectorSize-int((at+int64(from))%sectorSize), len(b)-from)
		if len(bytes.Trim(b[from:from+size], "\x00")) == 0 && !(right && from+size < 4) {
			return true
		}
		from += size
	}
	return false
}

// maxRepair is the size in bytes of the largest record that is put right. In larger ones other damage could be taken
// for one wrong bit.
const maxRepair = 4 << 20

// repair returns the data of the record at the start of b, if it is a record with one wrong bit. The wrong bit may be
// of its length, its checksum or its data. It returns nil if there is none. It may change b.
func repair(b []byte) []byte {
	if len(b) <= recordHeader {
		return nil
	}
	n, sum := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	for bit := range 32 {
		if m := n ^ 1<<bit; fits(m, b) && checksum(b[recordHeader:recordHeader+m]) == sum {
			return b[recordHeader : recordHeader+m]
		}
	}
	if !fits(n, b) {
		return nil
	}
	data := b[recordHeader : recordHeader+n]
	wrong := checksum(data) ^ sum
	if bits.OnesCount32(wrong) == 1 {
		return data
	}
	if at, bit, ok := wrongBit(wrong, len(data)); ok {
		data[at] ^= 1 << bit
		return data
	}
	return nil
}

// fits reports whether b can begin with a record of n bytes that may be put right.
func fits(n uint32, b []byte) bool { return n > 0 && n <= maxRepair && int(n) <= len(b)-recordHeader }

// wrongBit returns which bit of n bytes changes their CRC-32C by wrong. A CRC is linear: which bits of it a bit of the
// data changes depends only on how many bits follow that one. The function goes through the data from its last bit,
// which is the highest of the last byte, to the first.
func wrongBit(wrong uint32, n int) (at int, bit uint, ok bool) {
	change := uint32(crc32.Castagnoli)
	for i := range n * 8 {
		if change == wrong {
			return n - 1 - i/8, 7 - uint(i%8), true
		}
		low := change & 1
		change >>= 1
		if low != 0 {
			change ^= crc32.Castagnoli
		}
	}
	return 0, 0, false
}

// maxSearch is how many bytes nextRecord reads for their checksums. In bytes that are no records hardly any have the
// form of a length, so that only a file that somebody made for the purpose needs more.
const maxSearch = 1 << 30

// nextRecord returns the offset of the first record in b that does not begin at 0, len(b) if there is none.
func nextRecord(b []byte) int {
	left := maxSearch
	for at := 1; at < len(b)-recordHeader; at++ {
		n := binary.BigEndian.Uint32(b[at:])
		if n == 0 || n > maxRecord || int(n) > len(b)-at-recordHeader {
			continue
		}
		if left -= int(n); left < 0 {
			break
		}
		if checksum(b[at+recordHeader:][:n]) == binary.BigEndian.Uint32(b[at+4:]) {
			return at
		}
	}
	return len(b)
}
