package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"dim/internal/control"
)

// HostKeys implements control.Backend.
func (api *API) HostKeys(ctx context.Context) ([]control.HostKey, error) {
	list := []control.HostKey{}
	for _, n := range api.Follow.Cluster().Nodes {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		served, ok := api.Serving.Node(n.Name)
		if !ok || n.Server().Name != api.Server {
			continue
		}
		for _, path := range hostKeyFiles() {
			content, ok := readSmall(served.Replica, path, hostKeyMax)
			if !ok {
				continue
			}
			if kind, key, ok := parseHostKey(content); ok {
				list = append(list, control.HostKey{Node: string(n.Name), KeyType: kind, Key: key})
			}
		}
	}
	return list, nil
}

// hostKeyMax bounds a file with a public key, in bytes. One of RSA with 16,384 bits has 2,800.
const hostKeyMax = 16 << 10

// hostKeyFiles are the public keys of sshd_config(5) HostKey, with the defaults of OpenSSH.
func hostKeyFiles() []string {
	return []string{
		"etc/ssh/ssh_host_ecdsa_key.pub", "etc/ssh/ssh_host_ed25519_key.pub", "etc/ssh/ssh_host_rsa_key.pub",
	}
}

// parseHostKey returns the type and the key of a public key as ssh-keygen(1) writes it. A node can write anything into
// the file: ok is false if it is no key.
func parseHostKey(content []byte) (kind, key string, ok bool) {
	line, _, _ := bytes.Cut(content, []byte("\n"))
	fields := strings.Fields(string(line))
	if len(fields) < 2 {
		return "", "", false
	}
	kind, key = fields[0], fields[1]
	blob, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(blob) < 4 {
		return "", "", false
	}
	// The key begins with its type, which is therefore one word of printable characters.
	n := binary.BigEndian.Uint32(blob)
	if uint64(n) > uint64(len(blob)-4) || string(blob[4:4+n]) != kind || !isKeyType(kind) {
		return "", "", false
	}
	return kind, key, true
}

func isKeyType(kind string) bool {
	return len(kind) <= 64 && strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789-@.") == "" && kind[0] != '@'
}
