package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"dim/e2e/agent"
	"dim/internal/testkit"
)

// The cases of e2e/posix over NFS: on files of the version, on files that the node made, and on files of the
// version of which the node has written half. Then 100,000 steps of random input and output, some through
// mappings, each part on a file of the version.
func TestFilesOfAnyOriginUnderARealClient(t *testing.T) {
	needLab(t)
	if os.Getenv("DIM_LONG") == "" {
		t.Skip("takes minutes: run `make long`")
	}
	const parts, steps = 10, 10_000
	master, posix := smallMaster(t), build(t, "dim/e2e/posix")
	srv := filepath.Join(master, "srv")
	posixSeeds(t, posix, srv+"/version")
	posixSeeds(t, posix, srv+"/half")
	for i := range parts {
		posixSeeds(t, posix, fmt.Sprint(srv, "/random", i), "-run", "random input")
	}
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	g := startGuest(t, c, "n01", map[string]string{"bin/posix": posix})
	testkit.Must(t, g.call("Mkdir", agent.PathArgs{Path: "/mnt/root/srv/layer"}, &agent.None{}))
	for place, args := range map[string][]string{"version": {"-seeds", "use"}, "layer": nil,
		"half": {"-seeds", "half"}} {
		t.Run(place, func(t *testing.T) { guest{g.UML, t}.posix("/mnt/root/srv/"+place, args...) })
	}
	for i := range parts {
		t.Run(fmt.Sprint("random", i), func(t *testing.T) {
			guest{g.UML, t}.posix(fmt.Sprint("/mnt/root/srv/random", i),
				"-seeds", "use", "-run", "random input", "-ops", fmt.Sprint(steps), "-seed", fmt.Sprint(i))
		})
	}
}
