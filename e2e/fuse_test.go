package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// The same replica that nodes see over NFS, through the kernel's FUSE: what fails here is the replica's fault, what fails only over NFS is
// the NFS server's.
func TestAReplicaThroughFUSEBehavesAsPOSIXSays(t *testing.T) {
	needLab(t)
	c := raise(t, t.TempDir(), smallMaster(t))
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	bin, err := filepath.Abs("../bin/dim")
	must(t, err)
	// All in one shell: each `ip netns exec` has mounts of its own, so /mnt is private, and open to all users.
	const script = `
		mount -t tmpfs -o mode=755 lab /mnt && mkdir "$3"
		"$1" mount n01 "$3" --data "$2" >/dev/null & mount=$!
		for i in $(seq 100); do [ -e "$3/etc/motd" ] && break; sleep 0.1; done
		grep -q n01 "$3/etc/hostname" && mkdir "$3/srv/posix" && "$4" "$3/srv/posix"; code=$?
		kill -INT $mount; wait $mount; exit $code`
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	data := filepath.Join(filepath.Dir(c.ServerLog()), "data")
	out, err := c.Net.Command(ctx, "sh", "-c", script, "sh", bin, data, "/mnt/n01", build(t, "dim/e2e/posix")).CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
