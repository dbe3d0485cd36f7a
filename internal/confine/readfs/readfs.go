// Package readfs lets a process of package confine read file systems of its parent, and return a result.
//
// The child has no file system. It asks for each thing by name, and the parent answers from an io/fs file system that
// it was given, such as a version. The child can read all of these file systems, and nothing else. It keeps what it
// was told of names, because it ends soon.
//
// A Session asks one child many times, so that reading something of thousands of nodes does not start thousands of
// processes. What one request has brought to the child can make all later answers wrong. It cannot make them dangerous,
// because no answer is trusted.
//
// What the child asks for and returns is not trusted: frames are bounded by package confine, and the result by the
// caller.
package readfs

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"dim/internal/confine"
)

// The frames. Those of other packages must be below.
const (
	kindAsk     confine.Kind = 200 + iota // a question
	kindResult                            // a part of the result
	kindPart                              // of the parent: a part of an answer
	kindAnswer                            // of the parent: an answer, or the rest of one
	kindAbsent                            // of the parent: there is no such name
	kindError                             // of the parent: a text
	kindRequest                           // of the parent: a request of a session
	kindDone                              // the result of a request is complete
	kindRefused                           // a request has failed; a text
)

// op is what a question asks for.
type op byte

const (
	opStat     op = iota + 1 // info, of what a link leads to
	opLstat                  // info
	opReadDir                // a list of info
	opReadLink               // the target
	opRead                   // content
)

// question asks about a name in one of the file systems.
type question struct {
	op     op
	root   byte
	offset uint64 // of content
	length uint32
	name   string
}

const questionHeader = 14

// maxName bounds the names in questions.
const maxName = 8192

func (q *question) encode() []byte {
	b := append(make([]byte, 0, questionHeader+len(q.name)), byte(q.op), q.root)
	b = binary.BigEndian.AppendUint64(b, q.offset)
	return append(binary.BigEndian.AppendUint32(b, q.length), q.name...)
}

func parseQuestion(b []byte) (q question, err error) {
	if len(b) < questionHeader || len(b) > questionHeader+maxName {
		return q, errors.New("a question of the process that reads is not understood")
	}
	q = question{
		op: op(b[0]), root: b[1], offset: binary.BigEndian.Uint64(b[2:]), length: binary.BigEndian.Uint32(b[10:]),
		name: string(b[questionHeader:]),
	}
	if !fs.ValidPath(q.name) || q.offset > 1<<62 || q.length > confine.MaxPayload {
		return q, fmt.Errorf("a question of the process that reads is out of range: %.100q", q.name)
	}
	return q, nil
}

// info is what is known of a name. It is an fs.FileInfo and an fs.DirEntry.
type info struct {
	N string      `json:"n"`
	S int64       `json:"s"`
	M fs.FileMode `json:"m"`
	T int64       `json:"t"` // nanoseconds since 1970
}

func infoOf(i fs.FileInfo) info { return info{i.Name(), i.Size(), i.Mode(), i.ModTime().UnixNano()} }

func (i info) Name() string               { return i.N }
func (i info) Size() int64                { return i.S }
func (i info) Mode() fs.FileMode          { return i.M }
func (i info) Type() fs.FileMode          { return i.M.Type() }
func (i info) ModTime() time.Time         { return time.Unix(0, i.T) }
func (i info) IsDir() bool                { return i.M.IsDir() }
func (i info) Sys() any                   { return nil }
func (i info) Info() (fs.FileInfo, error) { return i, nil }

func encode(value any) ([]byte, error) { return json.Marshal(value) }
