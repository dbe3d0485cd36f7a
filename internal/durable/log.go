package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Log is an append-only file of records. A record has its length (4 bytes, big endian), the CRC-32C of its data (4
// bytes) and its data. OpenLog cuts the file after its last complete record, since a crash may leave an incomplete one.
//
// The methods may be called concurrently.
type Log struct {
	mu   sync.Mutex
	f    *os.File
	size int64
	err  error // of an append that failed and could not be undone: further appends are refused
}

// maxRecord is the size of the largest record in bytes.
const maxRecord = 64 << 20

const recordHeader = 8

// OpenLog opens or creates the log at path and calls each with every record in order. each must not keep the record.
func OpenLog(path string, each func(record []byte) error) (*Log, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &Log{f: f}
	if err := l.replay(each); err != nil {
		f.Close()
		return nil, fmt.Errorf("open log %s: %w", path, err)
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, err
	}
	return l, nil
}

func (l *Log) replay(each func([]byte) error) error {
	r := io.NewSectionReader(l.f, 0, 1<<62)
	for {
		record, err := readRecord(r)
		if errors.Is(err, errTorn) {
			break
		}
		if err != nil {
			return err
		}
		if err := each(record); err != nil {
			return fmt.Errorf("record at %d: %w", l.size, err)
		}
		l.size += recordHeader + int64(len(record))
	}
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	return l.f.Sync()
}

// ReadLog calls each with every record of the log at path, and does not change the log. It returns the number of bytes
// behind the last complete record, which a crash left there.
func ReadLog(path string, each func(record []byte) error) (torn int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	r := io.NewSectionReader(f, 0, st.Size())
	for at := int64(0); ; {
		record, err := readRecord(r)
		if errors.Is(err, errTorn) {
			return st.Size() - at, nil
		}
		if err == nil {
			err = each(record)
		}
		if err != nil {
			return 0, fmt.Errorf("read log %s: record at %d: %w", path, at, err)
		}
		at += recordHeader + int64(len(record))
	}
}

var errTorn = errors.New("incomplete record")

func readRecord(r io.Reader) ([]byte, error) {
	var head [recordHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, torn(err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n > maxRecord {
		return nil, errTorn
	}
	record := make([]byte, n)
	if _, err := io.ReadFull(r, record); err != nil {
		return nil, torn(err)
	}
	if crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(head[4:]) {
		return nil, errTorn
	}
	return record, nil
}

func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTorn
	}
	return err
}

// Append adds a record and returns when it is durable. If it returns an error, the record is not in the log.
func (l *Log) Append(record []byte) error {
	if len(record) > maxRecord {
		return fmt.Errorf("append to %s: record of %d bytes is too large", l.f.Name(), len(record))
	}
	buf := make([]byte, recordHeader, recordHeader+len(record))
	binary.BigEndian.PutUint32(buf[:4], uint32(len(record)))
	binary.BigEndian.PutUint32(buf[4:], crc32.Checksum(record, crc32.MakeTable(crc32.Castagnoli)))
	buf = append(buf, record...)

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	_, err := l.f.WriteAt(buf, l.size)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		if terr := l.f.Truncate(l.size); terr != nil {
			l.err = fmt.Errorf("append to %s: %w", l.f.Name(), terr)
		}
		return fmt.Errorf("append to %s: %w", l.f.Name(), err)
	}
	l.size += int64(len(buf))
	return nil
}

// Size returns the log's size in bytes. A caller decides by it when to write the log anew.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Close closes the file.
func (l *Log) Close() error { return l.f.Close() }
