package cluster

import "strconv"

// Quota bounds a node's own changes to one image. Zero: no bound.
type Quota struct {
	Bytes uint64 // disk space
	Files uint64 // files, directories and other objects
	Of    string // what declares it: QuotaOfNode, "group big", "image compute", "the cluster"; "" if nothing does
}

// QuotaOfNode is Quota.Of of a quota in a node's own element.
const QuotaOfNode = "the node"

// Quota returns the quota of n on image im: its own, else that of the last of its groups that has one, else the
// image's, else the cluster's. If there is none of these, nothing is bounded.
func (n *Node) Quota(im *Image) Quota {
	if n.quota != nil {
		return *n.quota
	}
	for i := len(n.Groups) - 1; i >= 0; i-- {
		if q := n.Groups[i].Quota; q != nil {
			return *q
		}
	}
	if im.Quota != nil {
		return *im.Quota
	}
	if im.defaultQuota != nil {
		return *im.defaultQuota
	}
	return Quota{}
}

// quotaElement is the <quota> of an owner: "the node".
func quotaElement(owner string) *element {
	return &element{
		name: "quota", maxCount: 1,
		doc: "The quota of " + owner + " for its own changes to an image. Writes beyond it fail with " +
			"\"Disk quota exceeded\", and df shows it. Set-aside copies do not count.",
		attributes: []attribute{
			{
				name: "bytes", kind: kindSize(), byDefault: "no bound",
				doc: "Disk space; K, M, G and T are powers of 1024.",
			},
			{
				name: "files", kind: kindNumber(), byDefault: "no bound",
				doc: "The number of files, directories and other objects. 0 means no bound.",
			},
		},
	}
}

// quota returns the <quota> of an item, nil if there is none. of is what it belongs to, as in Quota.Of.
func (b *builder) quota(it *item, of string) *Quota {
	all := it.all("quota")
	if len(all) == 0 {
		return nil
	}
	q, out := all[0], &Quota{Of: of}
	if v, ok := q.get("bytes"); ok {
		out.Bytes = b.size(v)
	}
	if v, ok := q.get("files"); ok {
		out.Files, _ = strconv.ParseUint(v.text, 10, 32)
	}
	return out
}

func kindSize() kind {
	return kind{name: "size", regexp: `[1-9][0-9]{0,14}[KMGT]?`, want: "a size such as 500M or 10G"}
}

// size returns the value of an attribute of kindSize.
func (b *builder) size(v value) uint64 {
	n, ok := parseSize(v.text)
	if !ok {
		b.add(v.at, "%s=%q: must be less than 8192T", v.name, v.text)
	}
	return n
}

// parseSize parses a number with a unit, of the form of kindSize. ok is false if it is too large.
func parseSize(s string) (n uint64, ok bool) {
	shift := map[byte]uint{'K': 10, 'M': 20, 'G': 30, 'T': 40}[s[len(s)-1]]
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n << shift, err == nil && n < 1<<53>>shift
}
