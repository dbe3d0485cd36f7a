package membership

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strings"
)

// token is what a person carries from a head to a new machine. It proves the head to the machine, and the machine to
// the head.
type token struct {
	root   [sha256.Size]byte // digest of the public key of the cluster's root
	secret [secretSize]byte
}

const (
	secretSize  = 16
	tokenPrefix = "dim1-" // the version of the form
	tokenBytes  = sha256.Size + secretSize + 4
)

var errToken = errors.New("the token is damaged or incomplete: copy the whole line that dim token printed")

// newToken makes a token of the cluster whose root has a digest.
func newToken(root [sha256.Size]byte) token {
	t := token{root: root}
	_, _ = rand.Read(t.secret[:]) // which never fails
	return t
}

// String returns the token as people copy it: letters and digits, with a checksum at the end.
func (t token) String() string {
	b := append(append([]byte{}, t.root[:]...), t.secret[:]...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return tokenPrefix + strings.ToLower(tokenEncoding().EncodeToString(b))
}

// parseToken is the inverse of String.
func parseToken(text string) (t token, err error) {
	code, ok := strings.CutPrefix(text, tokenPrefix)
	b, err := tokenEncoding().DecodeString(strings.ToUpper(code))
	if !ok || err != nil || len(b) != tokenBytes {
		return t, errToken
	}
	sum := binary.BigEndian.Uint32(b[tokenBytes-4:])
	if crc32.ChecksumIEEE(b[:tokenBytes-4]) != sum {
		return t, errToken
	}
	copy(t.root[:], b)
	copy(t.secret[:], b[sha256.Size:])
	if t.String() != text {
		return token{}, errToken
	}
	return t, nil
}

func tokenEncoding() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

// digestOf names a token in the shared state by the digest of its secret.
func digestOf(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}
