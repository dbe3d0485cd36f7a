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
	var r control.WatchRequest
	debounce := 200 * time.Millisecond
	cmd := a.listing(&cobra.Command{
		Use:   "watch NAME",
		Short: "Make a version of an image whenever its master changes",
		Long: `Lets the server watch the master of an image, which must be a directory. An edit
becomes a version within a second after the master has become quiet. The cost
depends on the edit, not on the size of the master. The server continues after a
restart, until --off.

Nodes keep their version, unless --rollout is given: then they follow every
version, and the master is mirrored to all nodes as it is edited.

The kernel reports the changes. If the file system of the master does not
support that (overlayfs, some network file systems), the server scans the whole
master every few seconds instead, and dim status says so.`,
		Example: `  dim image watch compute                   make versions as edits are made
  dim image watch compute --rollout now     also let all nodes follow at once
  dim image watch compute --dry-run         report how it would be watched
  dim image watch compute --off`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.Image, r.Debounce = args[0], debounce.Seconds()
			return a.imageWatch(cmd.Context(), r)
		},
		ValidArgsFunction: complete(1, a.imageNames),
	})
	cmd.Flags().StringVar(&r.Rollout, "rollout", "", "`WHEN` nodes follow each version: now or boot")
	completeFlag(cmd, "rollout", "now", "boot")
	cmd.Flags().DurationVar(&debounce, "debounce", debounce,
		"how long the master must be quiet before a version is made")
	cmd.Flags().BoolVar(&r.Off, "off", false, "stop watching")
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "only report how it would be watched")
	return cmd
}

func (a *app) imageWatch(ctx context.Context, r control.WatchRequest) error {
	done, err := a.client().Watch(ctx, r)
	if err != nil {
		return err
	}
	return a.show(done, func(w io.Writer) {
		if !r.DryRun {
			fmt.Fprintf(w, "%s: %s\n", done.Image, watchText(&done, time.Now()))
			return
		}
		how := "by the kernel's notifications"
		if done.Polling != "" {
			how = "by scans every few seconds: " + safe(done.Polling)
		}
		if r.Off {
			fmt.Fprintf(w, "would stop watching %s\n", done.Image)
			return
		}
		if done.Rollout != "" {
			how += "; nodes would follow " + done.Rollout
		}
		fmt.Fprintf(w, "would watch %s, %s\n", done.Image, how)
	})
}

// watchText describes in a line how a master is watched.
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
		parts = append(parts, "scanned every few seconds: "+safe(w.Polling))
	}
	if w.Lost > 0 {
		parts = append(parts, fmt.Sprintf("events were lost %d times", w.Lost))
	}
	return strings.Join(parts, ", ")
}
