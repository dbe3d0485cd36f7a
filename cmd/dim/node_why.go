package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"dim/internal/control"
	"dim/internal/timeline"
)

func (a *app) nodeWhyCommand() *cobra.Command {
	return a.listing(&cobra.Command{
		Use:   "why NODE",
		Short: "Say why a node does not boot, or boots slowly",
		Long: `Shows the last boots of a node as timelines, from the first DHCP request until it
runs, and says in a sentence what is wrong or slow.

TOOK is the time from a step to the next one. MEDIAN is that of other nodes: of
those with the same image in the same rack, or as near as the taxonomy has three
that have booted from the same server. A step with "slow" took three times as
long, and three seconds more.

The exit code is 3 if something is wrong or slow.`,
		Example: `  dim node why n17
  dim node why n17 -o json | jq -r .finding`,
		Args: operands(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.client().NodeBoots(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := a.show(n, func(w io.Writer) { printBoots(w, &n) }); err != nil {
				return err
			}
			if !n.Well {
				return errProblems
			}
			return nil
		},
		ValidArgsFunction: complete(1, a.nodeNames),
	})
}

func printBoots(w io.Writer, n *control.NodeBoots) {
	row(w, "node", fmt.Sprintf("%s (%s), served by %s", n.Node, n.Stage, n.Server))
	row(w, "finding", n.Finding)
	if n.Hint != "" {
		row(w, "hint", n.Hint)
	}
	if n.Compared != "" {
		row(w, "compared", "with the last boots of "+n.Compared)
	}
	for i := range n.Boots {
		printBoot(w, &n.Boots[i])
	}
}

func printBoot(w io.Writer, b *control.NodeBoot) {
	end := "runs after " + spanOf(b.Took)
	if !b.Ran {
		end = cmp.Or(b.Ended, "does not run after "+spanOf(b.Took))
	}
	fmt.Fprintln(w)
	row(w, "boot", clock(b.Began), safe(end))
	fmt.Fprintln(w)
	row(w, "STEP", "AT", "TOOK", "MEDIAN", "", "MESSAGE")
	for i := range b.Steps {
		s := &b.Steps[i]
		last := i+1 == len(b.Steps) && b.Ran
		median, took, slow := "", "", " "
		if s.Median > 0 {
			median = spanOf(s.Median)
		}
		if !last {
			took = spanOf(s.Took)
		}
		if s.Slow {
			slow = "slow"
		}
		row(w, s.Stage, fmt.Sprintf("+%.1f s", s.After), took, median, slow, stepText(s))
	}
}

// stepText is the message of a step, with how often it was repeated and why its last try failed.
func stepText(s *control.BootStep) string {
	text := []string{safe(s.Text)}
	if s.Error != "" {
		text = append(text, "failed: "+safe(s.Error))
	}
	if s.Count > 1 {
		text = append(text, plural(s.Count, "time"))
	}
	if text[0] == "" {
		text = text[1:]
	}
	return strings.Join(text, ", ")
}

// spanOf formats seconds.
func spanOf(seconds float64) string {
	return timeline.Span(time.Duration(seconds * float64(time.Second)))
}
