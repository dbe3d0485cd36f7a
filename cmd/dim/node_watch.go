package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
)

const (
	// watchInterval is the least time between two requests for the stages of nodes. If one takes longer than usual, as
	// with thousands of nodes, the next one comes after watchShare times as long.
	watchInterval = 500 * time.Millisecond
	watchShare    = 4
)

func (a *app) nodeWatchCommand() *cobra.Command {
	var untilRunning bool
	cmd := a.listing(&cobra.Command{
		Use:   "watch [NODES…]",
		Short: "Follow the boots of nodes",
		Long: `Prints the stage of each node of a set, or of all nodes, and a line whenever one
gets to another stage, until it is interrupted. With --until-running it ends when
all of them run.

With -o json each line is a JSON object, a node as dim node ls -o json has it.`,
		Example: `  dim node watch n17
  dim node watch '@rack2' --until-running
  dim node watch -o json | jq -r 'select(.stage == "silent") | .node'`,
		Args: operands(0, anyNumber),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.nodeWatch(cmd.Context(), joined(args), untilRunning)
		},
		ValidArgsFunction: complete(anyNumber, a.nodeNames),
	})
	cmd.Flags().BoolVar(&untilRunning, "until-running", false, "end when all of the nodes run")
	return cmd
}

// shownStage is what of a node is printed when it changes.
type shownStage struct{ stage, remark string }

func (a *app) nodeWatch(ctx context.Context, set string, untilRunning bool) error {
	seen := map[string]shownStage{}
	for {
		began := time.Now()
		nodes, err := a.client().Nodes(ctx, set)
		if err != nil {
			return err
		}
		pause := max(watchInterval, watchShare*time.Since(began))
		running := 0
		for _, n := range nodes {
			now := shownStage{n.Stage, remark(n)}
			if seen[n.Name] != now {
				seen[n.Name] = now
				if err := a.printStage(n); err != nil {
					return err
				}
			}
			if n.Stage == "running" {
				running++
			}
		}
		if untilRunning && running == len(nodes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (a *app) printStage(n control.Node) error {
	if a.format == "json" {
		return json.NewEncoder(a.out).Encode(n)
	}
	since := n.Since
	if since.IsZero() {
		since = time.Now()
	}
	_, err := fmt.Fprintf(a.out, "%s  %s  %-9s  %s\n", since.Local().Format("15:04:05.0"), safe(n.Name), safe(n.Stage),
		remark(n))
	return err
}
