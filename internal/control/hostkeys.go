package control

// HostKey is a public key by which the ssh server of a node proves that it is that node.
type HostKey struct {
	Node    string `json:"node"`
	KeyType string `json:"key_type"` // such as "ssh-ed25519"
	Key     string `json:"key"`      // in base64 (RFC 4253 section 6.6)
	// Problem says why the keys of the nodes of a server are not known: it does not answer. Node and keys are empty.
	Problem string `json:"problem,omitempty"`
}
