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
			v := programVersion{version(), runtime.Version(), runtime.GOARCH}
			return a.show(v, func(w io.Writer) { fmt.Fprintln(w, versionLine()) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	})
}

// programVersion is what dim version prints as JSON.
type programVersion struct {
	Program string `json:"program"`
	Go      string `json:"go"`
	Arch    string `json:"arch"`
}

// versionLine is what dim version and dim --version print.
func versionLine() string {
	return fmt.Sprintf("dim %s, %s, %s", version(), runtime.Version(), runtime.GOARCH)
}

// version is the version that the Go toolchain recorded: a tag, or the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
