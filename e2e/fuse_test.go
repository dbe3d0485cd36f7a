package e2e

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/lab"
	"dim/internal/testkit"
)

// The replica that nodes mount by NFS, mounted by FUSE. What fails here is a fault of the replica; what fails
// only by NFS is a fault of the NFS server.
func TestAReplicaThroughFUSEBehavesAsPOSIXSays(t *testing.T) {
	needLab(t)
	master, posix := smallMaster(t), build(t, "dim/e2e/posix")
	posixSeeds(t, posix, filepath.Join(master, "srv/version"))
	c := startCluster(t, t.TempDir(), master)
	dim(t, c, "image", "capture", "compute", "--rollout", "now")
	out, err := throughFUSE(t, c, 5*time.Minute, `"$1" "$PWD/srv/version" -seeds use`, posix)
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// throughFUSE runs a shell script with its arguments in the root of n01's replica, mounted on this machine.
func throughFUSE(t *testing.T, c *lab.Cluster, bound time.Duration, script string, args ...string) (string, error) {
	t.Helper()
	bin, err := filepath.Abs("../bin/dim")
	testkit.Must(t, err)
	// All runs in one shell, because each `ip netns exec` has its own mounts: /mnt is private, and open to all users.
	const around = `
		mount -t tmpfs -o mode=755 lab /mnt && mkdir /mnt/n01
		"$1" mount n01 /mnt/n01 --allow-other --data "$2" >/dev/null & mount=$!
		for i in $(seq 100); do [ -e /mnt/n01/etc/motd ] && break; sleep 0.1; done
		script=$3; shift 3
		cd /mnt/n01 && grep -q n01 etc/hostname && sh -c "$script" sh "$@"; code=$?
		cd /; kill -INT $mount; wait $mount; exit $code`
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	data := filepath.Join(filepath.Dir(c.ServerLog()), "data")
	argv := append([]string{"-c", around, "sh", bin, data, script}, args...)
	out, err := c.Net.Command(ctx, "sh", argv...).CombinedOutput()
	return string(out), err
}
