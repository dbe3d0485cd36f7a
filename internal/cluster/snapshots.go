package cluster

import (
	"strconv"
	"time"
)

// Snapshots says which snapshots of the nodes' layers over one image are kept. One is taken before a node switches to
// another version, and before a reset.
type Snapshots struct {
	Keep int           // how many for each node
	For  time.Duration // how long; 0: the default
	Copy uint64        // bytes that one may copy if the disk cannot share blocks; 0: the default
}

func snapshotAttributes() []attribute {
	return []attribute{
		{
			name: "snapshots", byDefault: "none are taken",
			kind: kind{name: "few", regexp: `[1-9][0-9]{0,2}`, want: "a number from 1 to 999"},
			doc: "How many snapshots of a node's own changes are kept. One is taken before the node switches to " +
				"another version, and before a reset, if something has changed since the last one.",
		},
		{
			name: "snapshot-days", kind: kindDays(), byDefault: "30",
			doc: "How long snapshots are kept, in days, 1 to 36500.",
		},
		{
			name: "snapshot-copy", kind: kindSize(), byDefault: "64M",
			doc: "How much a snapshot may copy on a disk that cannot share blocks between files (ext4). The node's " +
				"calls wait meanwhile. Files that have not changed since the last snapshot do not count. If more " +
				"would have to be copied, no snapshot is taken, and the log and `dim node snapshots` say so.",
		},
	}
}

// snapshots returns the snapshots that a <saved> demands, nil if none are to be taken.
func (b *builder) snapshots(it *item) *Snapshots {
	keep, ok := it.get("snapshots")
	if !ok {
		for _, name := range []string{"snapshot-days", "snapshot-copy"} {
			if v, has := it.get(name); has {
				b.add(v.at, "%s=%q has no effect without the attribute snapshots", name, v.text)
			}
		}
		return nil
	}
	out := &Snapshots{For: b.days(it, "snapshot-days")}
	out.Keep, _ = strconv.Atoi(keep.text)
	if v, ok := it.get("snapshot-copy"); ok {
		out.Copy = b.size(v)
	}
	return out
}
