package pkgdb

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// berkeley reads a hash table of Berkeley DB (src/dbinc/db_page.h of libdb). It reads all pages in their order instead
// of following the hash. Every offset is checked, and no page with a long value is read twice.
type berkeley struct {
	file     []byte
	order    binary.ByteOrder // that of the machine which wrote it
	pageSize int
	visited  map[uint32]bool // pages of long values
}

var errBerkeley = errors.New("not a readable hash table of Berkeley DB")

// Fields of pages, and their values.
const (
	berkeleyMagic = 0x061561
	berkeleyHead  = 26 // size of a page's head

	atMagic     = 12
	atNext      = 16 // of a page: the next one of a long value
	atPageSize  = 20 // of the first page
	atEntries   = 20 // of a page: number of keys and values
	atLength    = 22 // of a page with a part of a long value: the size of the part
	atEncrypted = 24
	atType      = 25
	atFlags     = 26 // of the first page
	atLastPage  = 32 // of the first page: the number of the last one

	hashUnsorted   = 2
	longValue      = 7
	hashFirst      = 8
	hashSorted     = 13
	flagSums       = 1 // pages have sums, and a longer head
	itemShort      = 1
	itemLong       = 3 // it has the number of the first page and the size
	longItemSize   = 12
	packageKeySize = 4
)

// walkBerkeley calls yield with the header of every package.
func walkBerkeley(file []byte, yield func(header []byte) error) error {
	b, err := openBerkeley(file)
	if err != nil {
		return err
	}
	for n := 1; (n+1)*b.pageSize <= len(file); n++ {
		page := b.file[n*b.pageSize : (n+1)*b.pageSize]
		if kind := page[atType]; kind != hashUnsorted && kind != hashSorted {
			continue
		}
		if err := b.pairs(page, yield); err != nil {
			return fmt.Errorf("%w: page %d: %w", errBerkeley, n, err)
		}
	}
	return nil
}

func openBerkeley(file []byte) (*berkeley, error) {
	if len(file) < 512 {
		return nil, errBerkeley
	}
	b := &berkeley{file: file, order: binary.LittleEndian, visited: map[uint32]bool{}}
	if binary.BigEndian.Uint32(file[atMagic:]) == berkeleyMagic {
		b.order = binary.BigEndian
	}
	if b.order.Uint32(file[atMagic:]) != berkeleyMagic || file[atType] != hashFirst {
		return nil, errBerkeley
	}
	size := b.order.Uint32(file[atPageSize:])
	if size < 512 || size > 65536 || size&(size-1) != 0 {
		return nil, fmt.Errorf("%w: pages of %d bytes", errBerkeley, size)
	}
	if b.pageSize = int(size); file[atEncrypted] != 0 || file[atFlags]&flagSums != 0 {
		return nil, fmt.Errorf("%w: it is encrypted or has checksums", errBerkeley)
	}
	last := int64(b.order.Uint32(file[atLastPage:]))
	if (last+1)*int64(size) > int64(len(file)) {
		return nil, fmt.Errorf("%w: it is shorter than its %d pages", errBerkeley, last+1)
	}
	return b, nil
}

// pairs calls yield with the headers on a page. Keys and values alternate, and lie from the end of the page backwards.
// A key is the number of a package; what has the number 0 is the largest number in use.
func (b *berkeley) pairs(page []byte, yield func([]byte) error) error {
	count := int(b.order.Uint16(page[atEntries:]))
	if berkeleyHead+2*count > len(page) || count%2 != 0 {
		return fmt.Errorf("%d entries", count)
	}
	end, isPackage := len(page), false
	for i := range count {
		at := int(b.order.Uint16(page[berkeleyHead+2*i:]))
		if at < berkeleyHead+2*count || at >= end {
			return fmt.Errorf("entry %d is at byte %d", i, at)
		}
		item := page[at:end]
		end = at
		if i%2 == 0 {
			isPackage = len(item) == 1+packageKeySize && item[0] == itemShort && b.order.Uint32(item[1:]) != 0
			continue
		}
		if !isPackage {
			continue
		}
		value, err := b.value(item)
		if err == nil {
			err = yield(value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// value returns the value that an item is or refers to.
func (b *berkeley) value(item []byte) ([]byte, error) {
	switch {
	case item[0] == itemShort:
		return item[1:], nil
	case item[0] != itemLong || len(item) < longItemSize:
		return nil, fmt.Errorf("a value of type %d", item[0])
	}
	next, size := b.order.Uint32(item[4:]), int64(b.order.Uint32(item[8:]))
	if size > int64(len(b.file)) {
		return nil, fmt.Errorf("a value of %d bytes", size)
	}
	value := make([]byte, 0, size)
	for int64(len(value)) < size {
		at := int64(next) * int64(b.pageSize)
		if next == 0 || at+int64(b.pageSize) > int64(len(b.file)) || b.visited[next] {
			return nil, fmt.Errorf("a value has its rest on page %d", next)
		}
		b.visited[next] = true
		page := b.file[at : at+int64(b.pageSize)]
		length := int(b.order.Uint16(page[atLength:]))
		if page[atType] != longValue || length == 0 || berkeleyHead+length > len(page) {
			return nil, fmt.Errorf("page %d has no part of a value", next)
		}
		value = append(value, page[berkeleyHead:berkeleyHead+length]...)
		next = b.order.Uint32(page[atNext:])
	}
	return value[:size], nil
}
