package versions

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/coord"
	"dim/internal/image"
)

func TestVersionsThatTheSharedStateLacksAreSorted(t *testing.T) {
	version := func(n int) image.Version { return image.Version{Image: "compute", Number: n} }
	stored := []image.Version{version(2), version(3), version(5)}
	reserved := func(n int, server string) map[int]coord.Reservation {
		return map[int]coord.Reservation{n: {Server: server}}
	}
	tests := []struct {
		name             string
		image            *coord.Image
		pending, removed []int
	}{
		{"the state has all", &coord.Image{Last: 5, Versions: stored}, nil, nil},
		{
			"the state has more",
			&coord.Image{Last: 6, Versions: append([]image.Version{version(1)}, append(stored, version(6))...)},
			nil, nil,
		},
		{
			"a crash between the store and the state",
			&coord.Image{Last: 5, Versions: stored[:2], Reserved: reserved(5, "head")}, []int{5}, nil,
		},
		{
			"a later number is reserved as well",
			&coord.Image{
				Last: 6, Versions: stored[:2],
				Reserved: map[int]coord.Reservation{5: {Server: "head"}, 6: {Server: "b"}},
			},
			[]int{5}, nil,
		},
		{
			"the number is another server's",
			&coord.Image{Last: 5, Versions: stored[:2], Reserved: reserved(5, "other")}, nil, nil,
		},
		{
			"the number was reserved under a former name of this server",
			&coord.Image{Last: 5, Versions: stored[:2], Reserved: reserved(5, "former")}, []int{5}, nil,
		},
		{"the newest was removed", &coord.Image{Last: 5, Versions: stored[:2]}, nil, []int{5}},
		{
			"one in the middle was removed",
			&coord.Image{Last: 5, Versions: []image.Version{version(2), version(5)}}, nil, []int{3},
		},
		{"the state was lost", nil, []int{2, 3, 5}, nil},
		{"the state is an older copy", &coord.Image{Last: 2, Versions: stored[:1]}, []int{3, 5}, nil},
		{"the copy has a removal", &coord.Image{Last: 4, Versions: stored[:1]}, []int{5}, []int{3}},
		{
			"a first capture crashed before the store",
			&coord.Image{Last: 1, Reserved: reserved(1, "head")}, []int{2, 3, 5}, nil,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := coord.State{Images: map[string]*coord.Image{"other": {Last: 9}}}
			if test.image != nil {
				s.Images["compute"] = test.image
			}
			pending, removed := lacking(s, func(server string) bool { return server != "other" }, stored)
			if diff := cmp.Diff(test.pending, numbers(pending)) + cmp.Diff(test.removed, numbers(removed)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func numbers(list []image.Version) (out []int) {
	for _, v := range list {
		out = append(out, v.Number)
	}
	return out
}
