// Package confine runs a function that reads untrusted bytes in a process of its own, which can do little harm when
// those bytes break it.
//
// # How
//
// The program starts itself again, with the arguments in a Program, and Main runs one Task there. Parent and child talk
// over two pipes in frames: a byte that says what it is, the length, the payload. The child's standard error is kept
// for the message if it crashes. Files that the parent has opened may be handed over.
//
// # What the child cannot do
//
//   - It has the memory, the processor time and the number of files in Limits. A child from which nothing comes for the
//     time Limits.Silence is ended.
//   - It opens no file: its root is a directory that has been removed, and Landlock, where the kernel has it, denies
//     all of the file system. It writes to no file but the pipes and the note.
//   - It has no capabilities and cannot gain any, and its user is nobody.
//   - It has no network, and sees no other process: it is in namespaces of its own.
//
// The last three need a parent that is root; with other users what the kernel permits is done. The memory limit and
// Landlock do not need root.
//
// # What the parent may believe
//
// Nothing that the child says: once its bytes have broken it, it says whatever their author wants. Frames are bounded.
// All of their content is to be checked like that of a file from a stranger.
package confine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Program is this program, with the arguments that make it call Main, its name first. The zero Program starts nothing.
type Program struct{ Argv []string }

// Limits bound a child.
type Limits struct {
	Memory  uint64        // bytes that it may have besides those of its start
	CPU     time.Duration // of the processor; 0: no limit. It is rounded up to seconds
	Silence time.Duration // it is ended when nothing has come from it, and it has taken nothing, for this time
}

// Kind says what a frame is. Kinds below Own belong to this package.
type Kind byte

// Own is the first kind that a task and its parent can use as they like.
const Own Kind = 16

const (
	kindEnd  Kind = iota + 1 // the task has ended; payload: its error, or nothing
	kindTask                 // to the child: what to run, as JSON
)

// MaxPayload is the largest payload of a frame, in bytes.
const MaxPayload = 1 << 20

const header = 5

// errFrame is the error of what is no frame.
var errFrame = errors.New("it does not keep to the protocol")

// readFrame reads a frame into room, which it makes larger if necessary.
func readFrame(r io.Reader, room []byte) (kind Kind, payload []byte, err error) {
	var h [header]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxPayload {
		return 0, nil, errFrame
	}
	if int(n) > cap(room) {
		room = make([]byte, n, max(int(n), 64<<10))
	}
	payload = room[:n]
	if _, err := io.ReadFull(r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Kind(h[0]), payload, nil
}

// writeFrame writes a frame, whose payload is given in parts.
func writeFrame(w *bufio.Writer, kind Kind, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > MaxPayload {
		return fmt.Errorf("a frame of %d bytes is too large", n)
	}
	var h [header]byte
	h[0] = byte(kind)
	binary.BigEndian.PutUint32(h[1:], uint32(n))
	if _, err := w.Write(h[:]); err != nil {
		return err
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// maxText is the longest text of a child that is shown to people, in bytes.
const maxText = 4096

// plain returns a text of a child without control characters, so that it can be shown.
func plain(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
