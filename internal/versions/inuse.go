package versions

import (
	"fmt"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/rollout"
)

// inUse maps each version that must stay to the reason.
type inUse map[image.Ref]string

func (u inUse) note(r image.Ref, why string) {
	r.Tag = ""
	if u[r] == "" {
		u[r] = why
	}
}

// inUse finds the versions of s that must stay, as far as this server knows. What is declared for nodes counts whether
// they are served here or not, if the description has them.
func (reg *Registry) inUse(s coord.State, has func(node string) bool) (inUse, error) {
	used := inUse{}
	for name, im := range s.Images {
		if v, ok := im.Followed(); ok {
			used.note(v.Ref(), "it is the current one of "+name)
		}
		for _, v := range im.Versions {
			if len(v.Tags) > 0 {
				used.note(v.Ref(), "it has the tag "+v.Tags[0])
			}
		}
	}
	for _, follow := range []coord.Refs{s.Desired, s.Next} {
		for node, ref := range follow {
			if has(node) {
				used.declared(s, ref, "node "+node+" is to run it")
			}
		}
	}
	if err := used.rollouts(s); err != nil {
		return nil, err
	}
	pinned, why := reg.Replicas.Pinned(has)
	for _, v := range pinned {
		used.note(v.Ref(), why[v.Digest])
	}
	for ref, why := range reg.Used() {
		used.note(ref, why)
	}
	return used, nil
}

// declares reports whether the description has a node. Until there is one, it may have any.
func (reg *Registry) declares(node string) bool {
	now := reg.Follow.Now()
	if now == nil || now.Cluster == nil {
		return true
	}
	_, ok := now.Cluster.Node(cluster.NodeName(node))
	return ok
}

// declared notes the version that a reference names.
func (u inUse) declared(s coord.State, r image.Ref, why string) {
	if v, ok := s.Resolve(r); ok {
		u.note(v.Ref(), why)
	}
}

// rollouts notes the versions of rollouts that are under way or the last of their image, and those that an undo of them
// leads back to.
func (u inUse) rollouts(s coord.State) error {
	list, err := new(rollout.Records).Of(s).List()
	if err != nil {
		return err
	}
	last := map[string]int{}
	for i := range list {
		last[list[i].Image] = max(last[list[i].Image], list[i].ID)
	}
	for i := range list {
		r := &list[i]
		if !r.UnderWay() && r.ID != last[r.Image] {
			continue
		}
		u.declared(s, r.Ref(), fmt.Sprintf("rollout %d leads to it", r.ID))
		back := fmt.Sprintf("an undo of rollout %d leads back to it", r.ID)
		if r.Current > 0 {
			u.note(image.Ref{Image: r.Image, Number: r.Current}, back)
		}
		for _, b := range r.Before {
			u.declared(s, b.Desired, back)
			u.declared(s, b.Next, back)
		}
	}
	return nil
}
