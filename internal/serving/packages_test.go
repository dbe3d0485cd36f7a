package serving

import (
	"slices"
	"strings"
	"testing"

	"dim/internal/layers"
	"dim/internal/pkgdb"
	"dim/internal/replica"
)

func TestANodeWhosePackagesAreNotKnownStaysUnlessTheMasterWins(t *testing.T) {
	c := layers.PackageConflicts{
		Unread: "package database cannot be read: it crashed", Paths: []string{"var/lib/dpkg/status"},
	}
	for _, choice := range pkgdb.Choices() {
		var move replica.Move
		left := addPackages(&move, &c, func() pkgdb.OnConflict { return choice })
		if choice == pkgdb.MasterWins {
			if left != "" || !slices.Equal(move.Extra, c.Paths) {
				t.Errorf("%s: %q, set aside %v", choice, left, move.Extra)
			}
			continue
		}
		if !strings.Contains(left, c.Unread) || !strings.Contains(left, "--on-conflict master") {
			t.Errorf("%s: %q", choice, left)
		}
	}
}
