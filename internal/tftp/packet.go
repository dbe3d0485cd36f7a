package tftp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// opcode is the first field of every packet (RFC 1350 section 5, RFC 2347).
type opcode uint16

const (
	opRead  opcode = 1
	opWrite opcode = 2
	opData  opcode = 3
	opAck   opcode = 4
	opError opcode = 5
	opOACK  opcode = 6
)

// errorCode is the field of an ERROR packet (RFC 1350 appendix, RFC 2347).
type errorCode uint16

const (
	codeUndefined errorCode = 0
	codeNotFound  errorCode = 1
	codeAccess    errorCode = 2
	codeIllegal   errorCode = 4
)

// request is a read or write request.
type request struct {
	op   opcode
	name string // unchanged; never empty
	mode string // lower case

	// Options; 0: not requested.
	blockSize int
	window    int
	timeout   int // seconds
	tsize     bool
}

// options reports whether the client requested an option that is known, so that an OACK has to be sent.
func (r *request) options() bool {
	return r.blockSize != 0 || r.window != 0 || r.timeout != 0 || r.tsize
}

// parseRequest decodes a read or write request. It ignores options that are not known or whose values are out of range:
// the server must not acknowledge these (RFC 2347).
func parseRequest(b []byte) (request, error) {
	var r request
	if len(b) < 2 {
		return r, fmt.Errorf("parse request: %d bytes", len(b))
	}
	r.op = opcode(binary.BigEndian.Uint16(b))
	if r.op != opRead && r.op != opWrite {
		return r, fmt.Errorf("parse request: operation %d", r.op)
	}
	name, rest, ok1 := cutString(b[2:])
	mode, rest, ok2 := cutString(rest)
	if !ok1 || !ok2 || name == "" {
		return r, fmt.Errorf("parse request: no name or mode in %.60q", b[2:])
	}
	r.name, r.mode = name, strings.ToLower(mode)
	for len(rest) > 0 {
		var key, value string
		var ok bool
		if key, rest, ok = cutString(rest); !ok {
			break // some firmware pads the packet
		}
		if value, rest, ok = cutString(rest); !ok {
			break
		}
		r.setOption(strings.ToLower(key), value)
	}
	return r, nil
}

const minBlockSize = 8 // RFC 2348

// setOption sets an option if its value is in the range that its RFC gives, and a time-out if it is not too long.
func (r *request) setOption(key, value string) {
	n, err := strconv.Atoi(value)
	if err != nil {
		return
	}
	switch {
	case key == "blksize" && n >= minBlockSize && n <= 65464: // RFC 2348
		r.blockSize = n
	case key == "timeout" && n >= 1 && n <= int(maxWait/time.Second): // RFC 2349 has up to 255
		r.timeout = n
	case key == "tsize" && n >= 0: // RFC 2349
		r.tsize = true
	case key == "windowsize" && n >= 1 && n <= 65535: // RFC 7440
		r.window = n
	}
}

// cutString splits b after the first zero byte.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", nil, false
	}
	return string(b[:i]), b[i+1:], true
}

// answer is a packet of the client during a transfer: an ACK, or an ERROR that ends it.
type answer struct {
	op      opcode
	block   uint16 // of an ACK; the code of an ERROR
	message string // of an ERROR
}

// parseAnswer decodes a packet that a reading client sends during a transfer.
func parseAnswer(b []byte) (answer, error) {
	if len(b) < 4 {
		return answer{}, fmt.Errorf("parse answer: %d bytes", len(b))
	}
	a := answer{op: opcode(binary.BigEndian.Uint16(b)), block: binary.BigEndian.Uint16(b[2:])}
	switch a.op {
	case opAck:
		return a, nil
	case opError:
		text, _, ok := cutString(b[4:])
		if !ok {
			text = string(b[4:])
		}
		a.message = text
		return a, nil
	}
	return a, fmt.Errorf("parse answer: operation %d", a.op)
}

func appendError(b []byte, code errorCode, text string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(opError))
	b = binary.BigEndian.AppendUint16(b, uint16(code))
	return append(append(b, text...), 0)
}

func appendDataHeader(b []byte, block uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(opData))
	return binary.BigEndian.AppendUint16(b, block)
}

// appendOACK encodes the options that are granted, in a fixed order.
func appendOACK(b []byte, r request, size int64) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(opOACK))
	option := func(key string, value int64) {
		b = append(append(b, key...), 0)
		b = append(strconv.AppendInt(b, value, 10), 0)
	}
	if r.blockSize != 0 {
		option("blksize", int64(r.blockSize))
	}
	if r.timeout != 0 {
		option("timeout", int64(r.timeout))
	}
	if r.tsize {
		option("tsize", size)
	}
	if r.window != 0 {
		option("windowsize", int64(r.window))
	}
	return b
}
