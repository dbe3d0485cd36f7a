package stream

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dim/internal/coord"
	"dim/internal/image"
)

func TestOneMoreNodeInTheInventoryIsSentAsOneLine(t *testing.T) {
	t.Parallel()
	var inventory []byte
	for i := range 2_000 {
		inventory = fmt.Appendf(inventory, "n%05d,eth0,52:54:00:00:%02x:%02x\n", 2*i, i>>8, i&255)
	}
	h, c, s := newHead(t), nodes(2), state(1)
	with := func(files ...coord.File) coord.State {
		d := *s.Description
		d.Files, d.Digest, d.Revision = files, image.Sum(files[len(files)-1].Data), s.Revision+1
		s.Revision, s.Description = s.Revision+1, &d
		return s
	}
	xml := coord.File{Name: "cluster.xml", Data: []byte("<cluster/>")}
	h.stream.Adopt(with(xml, coord.File{Name: "macs.csv", Data: inventory}), c)
	f := follow(t, coord.State{}, h.web)
	f.next(t)
	f.sent.take()
	half := bytes.Index(inventory, []byte("n02000"))
	more := slices.Concat(inventory[:half], []byte("n01999,eth0,52:54:00:00:ff:ff\n"), inventory[half:])
	for _, tt := range []struct {
		name  string
		files []coord.File
		most  int // bytes
	}{
		{"one more node", []coord.File{xml, {Name: "macs.csv", Data: more}}, 5000},
		{"one node less", []coord.File{xml, {Name: "macs.csv", Data: inventory}}, 5000},
		{"the same, twice", []coord.File{xml, {Name: "macs.csv", Data: slices.Repeat(inventory, 2)}}, 200_000},
		{"another file", []coord.File{xml, {Name: "other.csv", Data: more[:1000]}}, 5000},
		{"an empty file", []coord.File{xml, {Name: "other.csv"}}, 5000},
	} {
		want := with(tt.files...)
		h.stream.Adopt(want, c)
		if diff := cmp.Diff(of(want, c), f.next(t), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		if got := f.sent.take(); got > tt.most {
			t.Errorf("%s: %d bytes sent, want at most %d", tt.name, got, tt.most)
		}
	}
}
