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
		Short:   "Tell what this program is",
		Example: "  dim version -o json",
		Args:    operands(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version(), "go": runtime.Version(), "arch": runtime.GOARCH}
			return a.show(v, func(w io.Writer) { fmt.Fprintf(w, "dim %s, %s, %s\n", v["version"], v["go"], v["arch"]) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

// version is what the Go toolchain recorded of the source: a tag, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
