package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

func (a *app) imageWatchCommand() *cobra.Command {
	r, debounce := control.WatchRequest{}, 200*time.Millisecond
	cmd := a.listing(&cobra.Command{
		Use:   "watch NAME",
		Short: "Make a version of an image whenever its master changes",
		Long: `Lets the server follow the image's master, a directory: an edit becomes a version as soon as it has been quiet for a moment, within a
second, at a cost that follows the edit and not the size of the master. The server goes on with it after a restart, until --off.

Nodes stay where they are unless --rollout moves them along. With it a master is mirrored live: whatever is saved there is on every node.

The kernel tells what changes. Where its file system cannot (overlayfs, some network file systems), the server looks at all of the master
every few seconds instead; dim status says so.`,
		Example: `  dim image watch compute                   versions, as edits are made
  dim image watch compute --rollout now     and all nodes follow at once
  dim image watch compute --dry-run         can the kernel tell what changes?
  dim image watch compute --off`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Image, r.Debounce = args[0], debounce.Seconds()
			return a.imageWatch(cmd.Context(), r)
		},
		ValidArgsFunction: complete(1, a.imageNames),
	})
	cmd.Flags().StringVar(&r.Rollout, "rollout", "", "`WHEN` nodes follow each version: now or boot")
	_ = cmd.RegisterFlagCompletionFunc("rollout", cobra.FixedCompletions([]string{"now", "boot"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().DurationVar(&debounce, "debounce", debounce, "how `long` the master must be quiet before a version is made")
	cmd.Flags().BoolVar(&r.Off, "off", false, "watch it no longer")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only tell how it would be watched")
	return cmd
}

func (a *app) imageWatch(ctx context.Context, r control.WatchRequest) error {
	done, err := a.client().Watch(ctx, r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) {
		if r.DryRun {
			fmt.Fprint(w, "it would be so: ")
		}
		fmt.Fprintf(w, "%s: %s\n", done.Image, watchText(&done, time.Now()))
	})
}

// watchText tells in a line how a master is watched.
func watchText(w *control.Watch, now time.Time) string {
	if w == nil || !w.On {
		return "not watched"
	}
	parts := []string{"watched"}
	if !w.Since.IsZero() {
		parts[0] += " for " + ago(w.Since, now)
	}
	if w.Rollout != "" {
		parts = append(parts, "nodes follow "+w.Rollout)
	}
	if w.Versions > 0 {
		parts = append(parts, fmt.Sprintf("%s, the last %s ago", plural(w.Versions, "version"), ago(w.Made, now)))
	}
	if w.Polling != "" {
		parts = append(parts, "all of it every few seconds: "+safe(w.Polling))
	}
	if w.Lost > 0 {
		parts = append(parts, fmt.Sprintf("events were lost %d times", w.Lost))
	}
	return strings.Join(parts, ", ")
}
