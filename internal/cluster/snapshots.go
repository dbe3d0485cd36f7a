package cluster

import (
	"strconv"
	"time"
)

// Snapshots says which copies of the nodes' layers over one image are kept. One is taken before a node goes to another version, and before a reset.
type Snapshots struct {
	Keep int           // how many of each node
	For  time.Duration // how long; 0: the default
	Copy uint64        // bytes that one may copy where the disk cannot share blocks; 0: the default
}

func snapshotAttributes() []attribute {
	return []attribute{
		{name: "snapshots", kind: kind{name: "few", regexp: `[1-9][0-9]{0,2}`, want: "a number from 1 to 999"}, byDef: "none are taken", doc: "How many snapshots of what a node has of its own are kept. One is taken before the node goes to another version, and before a reset, if something has changed since the last one."},
		{name: "snapshot-days", kind: kindDays(), byDef: "30", doc: "For how long snapshots are kept, in days, 1 to 36500."},
		{name: "snapshot-copy", kind: kindSize(), byDef: "64M", doc: "How much a snapshot may copy on a disk that cannot share blocks between files (ext4), while the node's calls wait. What is the same as in the snapshot before does not count. Where it would be more, none is taken, and the log and `dim node snapshots` report it."},
	}
}

// snapshots reads what a <saved> says of snapshots; nil when none are to be taken.
func (b *builder) snapshots(it *item) *Snapshots {
	keep, ok := it.get("snapshots")
	if !ok {
		for _, name := range []string{"snapshot-days", "snapshot-copy"} {
			if v, has := it.get(name); has {
				b.add(v.at, "%s=%q without snapshots=: none are taken", name, v.text)
			}
		}
		return nil
	}
	out := &Snapshots{For: b.days(it, "snapshot-days")}
	out.Keep, _ = strconv.Atoi(keep.text)
	if v, ok := it.get("snapshot-copy"); ok {
		out.Copy = b.size(v, "snapshot-copy")
	}
	return out
}
