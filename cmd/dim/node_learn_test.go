package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/testkit"
)

// asking is a daemon of which machines ask for a boot. It records what is bound.
type asking struct {
	control.Backend // calls that no test makes
	bound           *[]string
}

// Machines lists the latest first, as the daemon does. The last one asks on another network, and has asked for longer.
func (b asking) Machines(context.Context) (list []control.Machine, err error) {
	now := time.Now()
	for i, minutes := range []time.Duration{2, 3, 1, 90} {
		list = append(list, control.Machine{
			MAC: fmt.Sprintf("52:54:00:aa:00:0%d", i), First: now.Add(-minutes * time.Minute), Last: now,
			Network: "boot",
		})
	}
	list[3].Network = "lab"
	return list, nil
}

func (b asking) Node(context.Context, string) (control.Node, error) {
	return control.Node{Details: &control.NodeDetails{Interfaces: []control.Interface{{Network: "lab"}}}}, nil
}

func (b asking) Learn(_ context.Context, r control.LearnRequest) (out control.LearnResult, err error) {
	for i, m := range r.Machines {
		out.Bound = append(out.Bound, control.Binding{Node: fmt.Sprint("n", i+1), Interface: "eth0", MAC: m.MAC})
		if !r.DryRun {
			*b.bound = append(*b.bound, m.MAC[15:])
		}
	}
	out.Revision, out.DryRun = 7, r.DryRun
	if !r.DryRun && r.Revision != 7 {
		err = control.Errorf(control.Conflict, "bound for revision %d", r.Revision)
	}
	return out, err
}

// The order is that of the first requests. What is bound was shown on the terminal, and somebody said yes.
func TestMachinesAreBoundInOrderAfterAYes(t *testing.T) {
	data := t.TempDir()
	var bound []string
	listen(t, data, asking{bound: &bound})
	for _, tt := range []struct {
		args, answer string
		code         int
		bound        string
		shown        string
	}{
		{"learn --in-order --within 1h", "y\n", exitOK, "01 00 02", "52:54:00:aa:00:01"},
		{"learn --in-order", "y\n", exitOK, "03 01 00 02", "52:54:00:aa:00:03"},
		{"learn --in-order --within 1h", "n\n", exitFailed, "", "52:54:00:aa:00:01"},
		{"learn --in-order", "\n", exitFailed, "", "Bind them? [y/N] "},
		{"learn", "y\n", exitUsage, "", "4 unknown machines ask for a boot"},
		{"learn --mac 5254.00aa.0002 --mac 52-54-00-AA-00-07", "y\n", exitOK, "02 07", "Bind them? [y/N] "},
		{"rebind n07", "y\n", exitOK, "03", "Bind them? [y/N] "},
	} {
		bound = nil
		keyboard, terminal := openTerminal(t)
		testkit.Value(keyboard.WriteString(tt.answer))(t)
		var out, errs bytes.Buffer
		code := run(append([]string{"--data", data, "node"}, strings.Fields(tt.args)...), terminal, &out, &errs)
		if code != tt.code || strings.Join(bound, " ") != tt.bound || !strings.Contains(errs.String(), tt.shown) {
			t.Errorf("%s, answer %q: exit code %d, bound %q, printed %s", tt.args, tt.answer, code, bound,
				errs.String())
		}
	}
}
