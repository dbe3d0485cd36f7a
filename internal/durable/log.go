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

// Log is an append-only file of records. A record has its length (4 bytes, big endian, at least 1), the CRC-32C of its
// data (4 bytes) and its data.
//
// Only the end of the file may be incomplete, because each record is durable before the next one is appended. OpenLog
// cuts an incomplete end. Everything else that is no record is damage: see OpenLog.
//
// The methods may be called concurrently.
type Log struct {
	mu   sync.Mutex
	f    *os.File
	size int64
	err  error  // of an append that failed and could not be undone: further appends are refused
	copy string // of the file as it was found damaged; "": it was not
}

// Record is what a log has at one place.
type Record struct {
	At      int64  // offset in the file
	Data    []byte // must not be kept
	Damaged bool   // Data is not a record but the bytes where one or several records have been
}

// maxRecord is the size of the largest record in bytes.
const maxRecord = 64 << 20

const recordHeader = 8

// OpenLog opens or creates the log at path and calls each with every record in order.
//
// If the file is damaged, a copy of it is kept first: see Log.DamagedCopy. A record with one wrong bit is put right,
// also in the file. Other damage goes to each, in its place between the records, and stays in the file.
func OpenLog(path string, each func(Record) error) (*Log, error) {
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

func (l *Log) replay(each func(Record) error) error {
	end, err := scanLog(l.f, func(r scanned) error {
		if r.Damaged || r.repaired {
			if err := l.keepCopy(); err != nil {
				return err
			}
		}
		if r.repaired {
			if _, err := l.f.WriteAt(EncodeRecord(r.Data), r.At); err != nil {
				return err
			}
		}
		if err := each(r.Record); err != nil {
			return fmt.Errorf("record at %d: %w", r.At, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.size = end
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	return l.f.Sync()
}

// keepCopy copies the file as it is. Its name depends on its content, so the same damage is copied once.
func (l *Log) keepCopy() error {
	if l.copy != "" {
		return nil
	}
	b, err := os.ReadFile(l.f.Name())
	if err != nil {
		return err
	}
	l.copy = fmt.Sprintf("%s.damaged-%08x", l.f.Name(), checksum(b))
	return WriteFile(l.copy, b, 0o600)
}

// DamagedCopy returns the path of the copy of the file as OpenLog found it, or "" if it was not damaged.
func (l *Log) DamagedCopy() string { return l.copy }

// ReadLog calls each with every record of the log at path, and does not change the log. It returns the number of bytes
// behind the last complete record, which a crash left there. Records that OpenLog would put right are reported as
// damaged.
func ReadLog(path string, each func(Record) error) (torn int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end, err := scanLog(f, func(r scanned) error {
		r.Damaged = r.Damaged || r.repaired
		if err := each(r.Record); err != nil {
			return fmt.Errorf("record at %d: %w", r.At, err)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read log %s: %w", path, err)
	}
	return st.Size() - end, nil
}

// scanned is a Record as it was found.
type scanned struct {
	Record
	repaired bool // one bit of it is wrong in the file
}

// scanLog calls each with everything in f. It returns the offset behind the last record: what is there is incomplete.
func scanLog(f *os.File, each func(scanned) error) (end int64, err error) {
	r := io.NewSectionReader(f, 0, 1<<62)
	for {
		data, err := readRecord(r)
		if err == nil {
			err = each(scanned{Record: Record{At: end, Data: data}})
			end += recordHeader + int64(len(data))
		} else if errors.Is(err, errNoRecord) {
			var length int64
			if length, err = scanDamage(f, end, each); length == 0 && err == nil {
				return end, nil
			}
			end += length
			_, _ = r.Seek(end, io.SeekStart) // cannot fail for an offset above 0
		}
		if err != nil {
			return end, err
		}
	}
}

// scanDamage calls each with what is at an offset where no record begins. It returns its length, 0 if this is the
// incomplete end of the file.
func scanDamage(f *os.File, at int64, each func(scanned) error) (length int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	rest, err := io.ReadAll(io.NewSectionReader(f, at, st.Size()-at))
	if err != nil {
		return 0, err
	}
	if data := repair(rest); data != nil {
		err := each(scanned{Record: Record{At: at, Data: data}, repaired: true})
		return recordHeader + int64(len(data)), err
	}
	next := nextRecord(rest)
	if next == len(rest) && incomplete(rest, at) {
		return 0, nil
	}
	return int64(next), each(scanned{Record: Record{At: at, Data: rest[:next], Damaged: true}})
}

var errNoRecord = errors.New("no record")

// readRecord reads a record. The error is errNoRecord if there is none.
func readRecord(r io.Reader) ([]byte, error) {
	var head [recordHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, noRecord(err)
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n == 0 || n > maxRecord {
		return nil, errNoRecord
	}
	record := make([]byte, n)
	if _, err := io.ReadFull(r, record); err != nil {
		return nil, noRecord(err)
	}
	if checksum(record) != binary.BigEndian.Uint32(head[4:]) {
		return nil, errNoRecord
	}
	return record, nil
}

func noRecord(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errNoRecord
	}
	return err
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// EncodeRecord returns a record as a log has it. A file that consists of such records is a log.
func EncodeRecord(data []byte) []byte {
	b := make([]byte, recordHeader, recordHeader+len(data))
	binary.BigEndian.PutUint32(b[:4], uint32(len(data)))
	binary.BigEndian.PutUint32(b[4:], checksum(data))
	return append(b, data...)
}

// Append adds a record and returns when it is durable. If it returns an error, the record is not in the log. A record
// has at least one byte.
func (l *Log) Append(record []byte) error {
	if len(record) == 0 || len(record) > maxRecord {
		return fmt.Errorf("append to %s: a record has 1 to %d bytes, not %d", l.f.Name(), maxRecord, len(record))
	}
	buf := EncodeRecord(record)

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
