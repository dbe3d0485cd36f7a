package pkgdb

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errNdb = errors.New("not a readable ndb database")

// Layout of ndb, which rpm calls its "new" database (lib/backend/ndb/rpmpkg.c of rpm). All numbers are little endian.
// The first pages consist of slots, the first two of which are the header. A slot names a package and its block; a
// block has a head, the package's header, and a tail with a sum.
const (
	ndbMagic      = "RpmP"
	ndbSlotMagic  = "Slot"
	ndbBlockMagic = "BlbS"
	ndbPage       = 4096
	ndbUnit       = 16 // size of a slot and of a block's head, and the unit of places and sizes
	ndbTail       = 12
	ndbHeaderSize = 2 * ndbUnit
)

// walkNdb calls yield with the header of every package.
func walkNdb(file []byte, yield func(header []byte) error) error {
	if len(file) < ndbPage || string(file[:4]) != ndbMagic {
		return errNdb
	}
	if version := binary.LittleEndian.Uint32(file[4:]); version != 0 {
		return fmt.Errorf("%w: it has version %d", errNdb, version)
	}
	pages := int64(binary.LittleEndian.Uint32(file[12:]))
	if pages == 0 || pages*ndbPage > int64(len(file)) {
		return fmt.Errorf("%w: %d pages of slots", errNdb, pages)
	}
	left := len(file) // packages share no bytes
	for at := ndbHeaderSize; at < int(pages)*ndbPage; at += ndbUnit {
		slot := file[at : at+ndbUnit]
		if string(slot[:4]) != ndbSlotMagic {
			return fmt.Errorf("%w: no slot at byte %d", errNdb, at)
		}
		if binary.LittleEndian.Uint32(slot[8:]) == 0 {
			continue // free
		}
		header, ok := ndbBlock(file, slot)
		if left -= len(header); !ok || left < 0 {
			return fmt.Errorf("%w: package %d", errNdb, binary.LittleEndian.Uint32(slot[4:]))
		}
		if err := yield(header); err != nil {
			return err
		}
	}
	return nil
}

// ndbBlock returns the content of the block that a slot names.
func ndbBlock(file, slot []byte) ([]byte, bool) {
	begin := int64(binary.LittleEndian.Uint32(slot[8:])) * ndbUnit
	size := int64(binary.LittleEndian.Uint32(slot[12:])) * ndbUnit
	if size < ndbUnit+ndbTail || begin+size > int64(len(file)) {
		return nil, false
	}
	block := file[begin : begin+size]
	length := int64(binary.LittleEndian.Uint32(block[12:]))
	if string(block[:4]) != ndbBlockMagic || string(block[4:8]) != string(slot[4:8]) || ndbUnit+length+ndbTail > size {
		return nil, false
	}
	return block[ndbUnit : ndbUnit+length], true
}
