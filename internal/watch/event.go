package watch

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// event is an event of fanotify(7), with FAN_REPORT_DFID_NAME and FAN_REPORT_FID.
type event struct {
	mask uint64
	dir  handle // the directory; "": not known
	name string // in the directory; ".": the directory itself
	file handle // the entry; "": not known
}

// handle identifies a file or directory without a path: the type and the bytes of a struct file_handle.
type handle string

func (e *event) is(mask uint64) bool { return e.mask&mask != 0 }

// self reports whether the event is about the directory itself.
func (e *event) self() bool { return e.name == "." }

var errBadEvent = errors.New("read file system events: bad record")

const (
	eventHead  = 24 // struct fanotify_event_metadata
	infoHead   = 4  // struct fanotify_event_info_header
	fidHead    = 16 // fsid, handle_bytes, handle_type
	handleHead = 8  // the last two of them
)

// nextEvent parses the first event of b and returns the rest.
func nextEvent(b []byte) (e event, rest []byte, err error) {
	ne := binary.NativeEndian
	if len(b) < eventHead {
		return e, nil, errBadEvent
	}
	size, head := int(ne.Uint32(b)), int(ne.Uint16(b[6:]))
	if b[4] != unix.FANOTIFY_METADATA_VERSION || head < eventHead || size < head || size > len(b) {
		return e, nil, errBadEvent
	}
	e.mask = ne.Uint64(b[8:])
	for info := b[head:size]; len(info) > 0; {
		if info, err = e.parseInfo(info); err != nil {
			return e, nil, err
		}
	}
	return e, b[size:], nil
}

// parseInfo parses the first information record of b and returns the rest.
func (e *event) parseInfo(b []byte) (rest []byte, err error) {
	ne := binary.NativeEndian
	if len(b) < infoHead {
		return nil, errBadEvent
	}
	kind, size := b[0], int(ne.Uint16(b[2:]))
	if size < infoHead || size > len(b) {
		return nil, errBadEvent
	}
	record, rest := b[infoHead:size], b[size:]
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_FID, unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME:
	default:
		return rest, nil
	}
	if len(record) < fidHead {
		return nil, errBadEvent
	}
	record = record[fidHead-handleHead:]
	n := int64(ne.Uint32(record))
	if n > int64(len(record)-handleHead) {
		return nil, errBadEvent
	}
	h, name := handle(record[4:handleHead+n]), record[handleHead+n:]
	if kind == unix.FAN_EVENT_INFO_TYPE_FID {
		e.file = h
		return rest, nil
	}
	e.dir, e.name = h, "."
	if kind == unix.FAN_EVENT_INFO_TYPE_DFID_NAME {
		e.name = unix.ByteSliceToString(name)
	}
	return rest, nil
}

// file returns h as an argument of system calls.
func (h handle) file() unix.FileHandle {
	return unix.NewFileHandle(int32(binary.NativeEndian.Uint32([]byte(h[:4]))), []byte(h[4:]))
}
