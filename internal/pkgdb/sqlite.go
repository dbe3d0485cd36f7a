package pkgdb

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// sqlite reads a database file of rpm. It implements as much of https://www.sqlite.org/fileformat2.html as is needed to
// walk one table. The whole file is in memory; every offset is checked, and no page is visited twice.
type sqlite struct {
	file     []byte
	pageSize int
	usable   int // bytes of a page, without the reserved ones at its end
	visited  map[uint32]bool
	depth    int
	left     int // bytes of the file that are in no record yet: records share none
}

var errSqlite = errors.New("not a readable SQLite database")

const (
	sqliteHeader = 100
	sqliteDepth  = 32
	pageInterior = 0x05
	pageLeaf     = 0x0d
	schemaPage   = 1
	schemaName   = 1 // column of sqlite_schema
	schemaRoot   = 3
	maxRecord    = 64 << 20
	blobSerial   = 12
)

// walkSqlite calls yield with the header of every package.
func walkSqlite(file []byte, yield func(header []byte) error) error {
	s, err := openSqlite(file)
	if err != nil {
		return err
	}
	return s.table("Packages", func(record []byte) error {
		columns := columnsOf(record)
		if len(columns) < 2 {
			return nil
		}
		return yield(columns[1])
	})
}

func openSqlite(file []byte) (*sqlite, error) {
	if len(file) < sqliteHeader || string(file[:16]) != "SQLite format 3\x00" {
		return nil, errSqlite
	}
	s := &sqlite{file: file, pageSize: int(binary.BigEndian.Uint16(file[16:]))}
	if s.pageSize == 1 {
		s.pageSize = 65536
	}
	s.usable = s.pageSize - int(file[20])
	if s.pageSize < 512 || s.pageSize&(s.pageSize-1) != 0 || s.usable < 480 {
		return nil, fmt.Errorf("%w: pages of %d bytes", errSqlite, s.pageSize)
	}
	return s, nil
}

// table calls yield with the record of every row of a table.
func (s *sqlite) table(name string, yield func(record []byte) error) error {
	root := uint32(0)
	err := s.walk(schemaPage, func(record []byte) error {
		columns := columnsOf(record)
		if len(columns) > schemaRoot && string(columns[schemaName]) == name {
			root = uint32(number(columns[schemaRoot]))
		}
		return nil
	})
	if err == nil && root == 0 {
		err = fmt.Errorf("%w: no table %s", errSqlite, name)
	}
	if err != nil {
		return err
	}
	return s.walk(root, yield)
}

// walk visits the table b-tree whose root is page number root.
func (s *sqlite) walk(root uint32, yield func([]byte) error) error {
	s.visited, s.depth, s.left = map[uint32]bool{}, 0, len(s.file)
	return s.page(root, yield)
}

// raw returns page number n, from 1.
func (s *sqlite) raw(n uint32) ([]byte, error) {
	at := (int64(n) - 1) * int64(s.pageSize)
	if n == 0 || at+int64(s.pageSize) > int64(len(s.file)) || s.visited[n] {
		return nil, fmt.Errorf("%w: page %d", errSqlite, n)
	}
	s.visited[n] = true
	return s.file[at : at+int64(s.pageSize)][:s.usable], nil
}

// page visits a page of a table b-tree and the pages below it.
func (s *sqlite) page(n uint32, yield func([]byte) error) error {
	if s.depth++; s.depth > sqliteDepth {
		return fmt.Errorf("%w: b-tree too deep", errSqlite)
	}
	defer func() { s.depth-- }()
	page, err := s.raw(n)
	if err != nil {
		return err
	}
	head := page
	if n == schemaPage {
		head = page[sqliteHeader:]
	}
	kind, cells := head[0], int(binary.BigEndian.Uint16(head[3:]))
	size := 8
	if kind == pageInterior {
		size = 12
	}
	if kind != pageInterior && kind != pageLeaf || size+2*cells > len(head) {
		return fmt.Errorf("%w: page %d is not part of a table", errSqlite, n)
	}
	for i := range cells {
		at := int(binary.BigEndian.Uint16(head[size+2*i:]))
		if at+4 > len(page) {
			return fmt.Errorf("%w: cell of page %d", errSqlite, n)
		}
		if kind == pageInterior {
			err = s.page(binary.BigEndian.Uint32(page[at:]), yield)
		} else {
			err = s.cell(page[at:], yield)
		}
		if err != nil {
			return err
		}
	}
	if kind == pageInterior {
		return s.page(binary.BigEndian.Uint32(head[8:]), yield)
	}
	return nil
}

// cell calls yield with the record of a leaf's cell, joined with its overflow pages.
func (s *sqlite) cell(b []byte, yield func([]byte) error) error {
	size, n := varint(b)
	_, m := varint(b[n:])
	if n == 0 || m == 0 || size > maxRecord {
		return fmt.Errorf("%w: a record of %d bytes", errSqlite, size)
	}
	if s.left -= int(size); s.left < 0 {
		return fmt.Errorf("%w: its records are larger than the file", errSqlite)
	}
	b = b[n+m:]
	// Section 1.6 of the format defines how many bytes are in the cell itself.
	local, maxLocal, minLocal := int(size), s.usable-35, (s.usable-12)*32/255-23
	if local > maxLocal {
		if local = minLocal + (int(size)-minLocal)%(s.usable-4); local > maxLocal {
			local = minLocal
		}
		if local+4 > len(b) {
			return errSqlite
		}
	}
	if local > len(b) {
		return errSqlite
	}
	record := append(make([]byte, 0, min(int(size), len(s.file))), b[:local]...)
	if local < int(size) {
		next := binary.BigEndian.Uint32(b[local:])
		for len(record) < int(size) {
			page, err := s.raw(next)
			if err != nil {
				return err
			}
			next = binary.BigEndian.Uint32(page)
			record = append(record, page[4:min(len(page), 4+int(size)-len(record))]...)
		}
	}
	return yield(record)
}

// columnsOf returns the bytes of a record's columns, up to the first one that does not fit.
func columnsOf(record []byte) [][]byte {
	size, n := varint(record)
	if n == 0 || size > uint64(len(record)) || uint64(n) > size {
		return nil
	}
	head, body := record[n:size], record[size:]
	var columns [][]byte
	for len(head) > 0 {
		serial, n := varint(head)
		if n == 0 {
			break
		}
		head = head[n:]
		length := uint64(0)
		switch {
		case serial >= blobSerial:
			length = (serial - blobSerial) / 2
		case serial == 5:
			length = 6
		case serial == 6 || serial == 7:
			length = 8
		case serial < 5:
			length = serial
		}
		if length > uint64(len(body)) {
			break
		}
		columns = append(columns, body[:length])
		body = body[length:]
	}
	return columns
}

// number returns the integer in a column.
func number(b []byte) (n uint64) {
	for _, c := range b {
		n = n<<8 | uint64(c)
	}
	return n
}

// varint returns the variable-length integer at the start of b, and its length, 0 if there is none.
func varint(b []byte) (v uint64, n int) {
	for n < min(len(b), 9) {
		c := b[n]
		n++
		if n == 9 {
			return v<<8 | uint64(c), n
		}
		v = v<<7 | uint64(c&0x7f)
		if c < 0x80 {
			return v, n
		}
	}
	return 0, 0
}
