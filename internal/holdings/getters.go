package holdings

import (
	"slices"

	"dim/internal/cluster"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
)

// groupSize is how many servers exchange parts of a version with each other.
const groupSize = 16

// Getters returns the servers that get a version together with asker, which is one of them: those that serve nodes of
// its image, that are not silent, and that have not reported that they have it whole. If there are many, they form
// groups by the order of their names, and the others are not in asker's group.
func Getters(
	now *follow.Declared, reports *fleet.Fleet, version image.Digest, asker cluster.ServerName,
) []cluster.ServerName {
	v, ok := versionOf(now, version)
	if !ok {
		return nil
	}
	found := map[cluster.ServerName]bool{asker: true}
	for _, n := range now.Cluster.Nodes {
		if string(n.Image.Name) != v.Image {
			continue
		}
		if name := n.Server().Name; !found[name] {
			h, ok := reports.Server(name)
			found[name] = ok && fleet.Fresh(h.At) && !h.Has(v.Ref(), version)
		}
	}
	var list []cluster.ServerName
	for name, gets := range found {
		if gets {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	begin := slices.Index(list, asker) / groupSize * groupSize
	return list[begin:min(begin+groupSize, len(list))]
}

// versionOf returns the declared version with a digest.
func versionOf(now *follow.Declared, digest image.Digest) (v image.Version, ok bool) {
	for _, im := range now.State.Images {
		for _, v := range slices.Backward(im.Versions) {
			if v.Digest == digest {
				return v, true
			}
		}
	}
	return v, false
}
