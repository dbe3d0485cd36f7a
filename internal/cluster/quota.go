package cluster

import "strconv"

// Quota bounds what nodes may have of their own over one image. Zero: no bound.
type Quota struct {
	Bytes uint64 // room on the disk
	Files uint64 // files, directories and the like
}

// Quota returns the bounds that hold for n on image im: its own, else those of the last group it is in that has some, else the image's.
func (n *Node) Quota(im *Image) Quota {
	if n.own != nil {
		return *n.own
	}
	for i := len(n.Groups) - 1; i >= 0; i-- {
		if q := n.Groups[i].Quota; q != nil {
			return *q
		}
	}
	if im.Quota != nil {
		return *im.Quota
	}
	return Quota{}
}

func quotaElement(whose string) *element {
	return &element{
		name: "quota", most: 1,
		doc: "What " + whose + " may have of its own over an image. More is refused as \"Disk quota exceeded\", and df shows it. What was set aside does not count.",
		attributes: []attribute{
			{name: "bytes", kind: kindSize(), byDef: "no bound", doc: "Room on the disk; K, M, G and T are powers of 1024."},
			{name: "files", kind: kindNumber(), byDef: "no bound", doc: "How many files, directories and the like. 0 is no bound."},
		},
	}
}

// quota reads the <quota> of an item, nil when there is none.
func (b *builder) quota(it *item) *Quota {
	all := it.all("quota")
	if len(all) == 0 {
		return nil
	}
	q, out := all[0], &Quota{}
	if v, ok := q.get("bytes"); ok {
		out.Bytes = b.size(v, "bytes")
	}
	if v, ok := q.get("files"); ok {
		out.Files, _ = strconv.ParseUint(v.text, 10, 32)
	}
	return out
}

func kindSize() kind {
	return kind{name: "size", regexp: `[1-9][0-9]{0,14}[KMGT]?`, want: "a size such as 500M or 10G"}
}

// size reads the attribute name, which is a size.
func (b *builder) size(v value, name string) uint64 {
	n, fits := parseSize(v.text)
	if !fits {
		b.add(v.at, "%s=%q: want less than 8192T", name, v.text)
	}
	return n
}

// parseSize reads a number with a unit that the vocabulary has checked.
func parseSize(s string) (n uint64, ok bool) {
	shift := map[byte]uint{'K': 10, 'M': 20, 'G': 30, 'T': 40}[s[len(s)-1]]
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n << shift, err == nil && n < 1<<53>>shift
}
