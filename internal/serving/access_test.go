package serving

import (
	"errors"
	"net/netip"
	"testing"

	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/nfs"
	"dim/internal/replica"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// client returns what a peer may use.
func (s *site) client(from string) (nfs.Client, error) {
	return s.Client(nfs.Peer{Remote: netip.MustParseAddrPort(from), Local: netip.MustParseAddrPort("10.0.0.1:2049")})
}

func TestWhoMayUseWhat(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	handles := map[string]vfs.Handle{
		"n01":     s.node("n01").fs.Root(),
		"n02":     s.node("n02").fs.Root(),
		"version": testkit.Value(s.version("compute@2"))(t).Root(),
		"unknown": testkit.Value(s.Set.ReadOnly(s.compute[2]))(t).Root(), // a version that is not declared
		"none":    {},
	}
	s.declare(1, func(now *coord.State) { now.Images["compute"].Versions = s.compute[:2] })
	const no, gone, missing = vfs.EACCES, vfs.ESTALE, vfs.ENOENT
	type answers map[string]error
	for _, tt := range []struct {
		name, from  string
		mount, find answers
	}{
		{
			"the node itself", "10.0.0.11:700",
			answers{
				"/nodes/n01": nil, "/nodes/n02": no, "/nodes/x1": no, "/nodes/none": no,
				"/images/compute@1": no, "/": no,
			},
			answers{"n01": nil, "n02": no, "version": no, "unknown": gone, "none": vfs.EBADHANDLE},
		},
		{
			"another node", "10.0.0.12:700",
			answers{"/nodes/n01": no, "/nodes/n02": nil},
			answers{"n01": no, "n02": nil, "version": no},
		},
		{
			"a node of another server", "10.0.0.99:700",
			answers{"/nodes/n01": no, "/nodes/x1": no},
			answers{"n01": no, "version": no},
		},
		{
			"the superuser of this machine", "127.0.0.1:700",
			answers{
				"/nodes/n01": nil, "/nodes/x1": missing, "/nodes/none": missing, "/images/compute@1": nil,
				"/images/compute@9": missing, "/images/compute@": missing, "/images/none": missing, "/": no,
			},
			answers{"n01": nil, "n02": nil, "version": nil, "unknown": gone, "none": vfs.EBADHANDLE},
		},
		{
			"an admin network", "10.9.0.5:700",
			answers{"/nodes/n01": no, "/nodes/none": no, "/images/compute@1": nil, "/images/compute@9": missing},
			answers{"n01": no, "version": nil},
		},
		{
			"a node on an admin network", "10.9.0.99:700",
			answers{"/nodes/n01": no, "/images/compute@1": no, "/images/compute@9": no},
			answers{"n01": no, "version": no, "unknown": gone},
		},
		{
			"nobody", "10.8.0.1:700",
			answers{"/nodes/n01": no, "/nodes/none": no, "/images/compute@1": no},
			answers{"n01": no, "version": no, "none": vfs.EBADHANDLE},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := testkit.Value(s.client(tt.from))(t)
			for path, want := range tt.mount {
				if fs, err := c.Mount(t.Context(), path); !errors.Is(err, want) || (fs == nil) != (want != nil) {
					t.Errorf("mount %s: %v, want %v", path, err, want)
				}
			}
			for name, want := range tt.find {
				if x, err := c.Find(handles[name]); !errors.Is(err, want) || (x.FS == nil) != (want != nil) {
					t.Errorf("find the tree of %s: %v, want %v", name, err, want)
				}
			}
		})
	}
}

func TestAnOrdinaryPortMayUseNothing(t *testing.T) {
	s := newSite(t, described(""))
	for name, from := range map[string]string{
		"a node": "10.0.0.11:7000", "this machine": "127.0.0.1:7000", "an admin network": "10.9.0.5:7000",
	} {
		if _, err := s.client(from); !errors.Is(err, errOrdinaryPort) {
			t.Errorf("an ordinary port of %s: %v", name, err)
		}
	}
}

func TestRightsEndWithTheDescription(t *testing.T) {
	s := newSite(t, described(""))
	c := testkit.Value(s.client("10.0.0.11:700"))(t)
	if s.declare(1, nil); !c.Current() {
		t.Error("another state with the same description ends them")
	}
	if s.describe(described("")); c.Current() {
		t.Error("another description does not end them")
	}
}

func TestAFormerReplicaIsServedToItsNodeAlone(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	root := s.node("n01").fs.Root()
	find := func(from string) error {
		_, err := testkit.Value(s.client(from))(t).Find(root)
		return err
	}
	other := s.capture("other", "other", testkit.Counter())
	s.describe(described(`  <group name="g" nodes="n01" image="other"/>` + "\n"))
	s.declare(2, func(now *coord.State) {
		now.Images["other"] = &coord.Image{Last: 1, Versions: []image.Version{other}}
	})
	s.reconcile()
	check := func(t *testing.T) {
		t.Helper()
		tree := replica.ReplicaTree("n01", "compute")
		if v, _ := s.Shows("n01"); v.Image != "other" {
			t.Errorf("n01 has the image %s", v.Image)
		}
		if err := find("10.0.0.12:700"); !errors.Is(err, vfs.ESTALE) && !errors.Is(err, vfs.EACCES) {
			t.Errorf("another node: %v", err)
		}
		if err := find("10.0.0.11:700"); err != nil {
			t.Errorf("the node itself: %v", err)
		}
		if x := s.table.Load().trees[tree]; x == nil || !x.former || x.node != "n01" {
			t.Errorf("the export: %+v", x)
		}
		s.reconcile()
		if err := find("10.0.0.11:700"); err != nil {
			t.Errorf("the node itself after another state: %v", err)
		}
	}
	t.Run("when the image changes", check)
	t.Run("after a restart", func(t *testing.T) {
		s.close()
		s.open(s.Store)
		s.reconcile()
		if err := find("10.9.0.5:700"); !errors.Is(err, vfs.ESTALE) {
			t.Errorf("an admin network: %v", err)
		}
		check(t)
	})
	t.Run("until the image has left the description", func(t *testing.T) {
		if _, err := s.formerReplica("n01", "none"); err == nil {
			t.Error("a replica of no image is served")
		}
		if _, err := s.formerReplica("x1", "other"); err == nil {
			t.Error("a replica of another server's node is served")
		}
	})
}
