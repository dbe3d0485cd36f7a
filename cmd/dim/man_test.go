package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"dim/internal/testkit"
)

var manDir = flag.String("man", "", "write the man pages into this directory")

// The packages have the man pages that this test writes. The time in them is that of SOURCE_DATE_EPOCH.
func TestEveryCommandHasAManPage(t *testing.T) {
	t.Setenv("DIM_DATA", "")
	dir := *manDir
	if dir == "" {
		dir = t.TempDir()
	}
	root := (&app{}).root()
	testkit.Must(t, doc.GenManTree(root, &doc.GenManHeader{Section: "8", Source: "DIM"}, dir))
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".8"
		page := string(testkit.Value(os.ReadFile(filepath.Join(dir, name)))(t))
		for _, want := range []string{".SH NAME", ".SH SYNOPSIS"} {
			if !strings.Contains(page, want) {
				t.Errorf("%s lacks %s", name, want)
			}
		}
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() && c.Name() != "help" {
				walk(c)
			}
		}
	}
	walk(root)
}
