package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  dim version -o json",
		Args:    operands(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version(), "go": runtime.Version(), "arch": runtime.GOARCH}
			return a.show(v, func(w io.Writer) { fmt.Fprintf(w, "dim %s, %s, %s\n", v["version"], v["go"], v["arch"]) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

// version is the version that the Go toolchain recorded: a tag, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
