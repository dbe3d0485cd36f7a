package replica

import (
	"testing"

	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

func attachSeed(t testing.TB, seed []vfstest.Entry) *Replica {
	t.Helper()
	m := newMemory(t)
	r, err := newTestSet(t, m).Attach(Spec{Node: "n01", Image: "compute", Version: m.Version(t, 1, seed)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// noSockets moves the sockets, which are never captured, from a version's seed to the layer's.
func noSockets(seed []vfstest.Entry) (version, layer []vfstest.Entry) {
	for _, e := range seed {
		if e.Type == vfs.Socket {
			layer = append(layer, e)
			continue
		}
		version = append(version, e)
	}
	return version, layer
}

func TestReplicaPassesTheBatteryWithASeedFromTheVersion(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	vfstest.Run(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS {
		version, layer := noSockets(seed)
		r := attachSeed(t, version)
		vfstest.Populate(t, r, layer)
		return r
	})
}

func TestReplicaPassesTheBatteryWithASeedFromTheLayer(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	vfstest.Run(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS {
		r := attachSeed(t, nil)
		vfstest.Populate(t, r, seed)
		return r
	})
}

func TestReplicaPassesTheBatteryWithASeedHalfAndHalf(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	vfstest.Run(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS {
		version, layer := vfstest.Split(seed)
		version, sockets := noSockets(version)
		r := attachSeed(t, version)
		vfstest.Populate(t, r, append(sockets, layer...))
		return r
	})
}

func TestVersionServedReadOnlyPassesTheBattery(t *testing.T) {
	vfstest.RunReadOnly(t, func(t *testing.T, seed []vfstest.Entry) vfs.FS {
		version, sockets := noSockets(seed)
		if len(sockets) > 0 {
			t.Skip("a version has no sockets")
		}
		m := newMemory(t)
		r, err := newSet(Options{Source: m}).ReadOnly(m.Version(t, 1, version))
		if err != nil {
			t.Fatal(err)
		}
		return r
	})
}
