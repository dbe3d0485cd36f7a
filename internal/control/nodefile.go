package control

// NodeFile is a file that is rendered for one node.
type NodeFile struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"` // octal
	UID    int    `json:"uid"`
	GID    int    `json:"gid"`
	Size   uint64 `json:"size"`
	Hidden bool   `json:"is_hidden"` // the node has an entry of its own at the path, and does not see the rendered file

	Content string `json:"content"` // bytes that are not UTF-8 are U+FFFD
}
