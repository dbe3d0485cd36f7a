package rollout

import (
	"fmt"
	"strconv"
	"strings"

	"dim/internal/quantity"
)

// maxRings bounds the number of rings that a request can ask for.
const maxRings = 100

// Rings divides nodes into rings, in their order. text is a list of numbers of nodes, percentages of all nodes, and
// "rest", such as 1,10%,rest; "" is one ring. Rings for which no nodes remain are left out. It is an error if nodes
// remain in the end.
func Rings(text string, nodes []string) ([]Ring, error) {
	if text == "" || len(nodes) == 0 {
		return []Ring{{Nodes: nodes}}, nil
	}
	var rings []Ring
	left := nodes
	parts := strings.Split(text, ",")
	if len(parts) > maxRings {
		return nil, fmt.Errorf("divide into rings %q: more than %d", text, maxRings)
	}
	for i, part := range parts {
		if i > 0 && strings.TrimSpace(parts[i-1]) == "rest" {
			return nil, fmt.Errorf("divide into rings %q: rest must be the last", text)
		}
		n, err := ringSize(strings.TrimSpace(part), len(nodes), len(left))
		if err != nil {
			return nil, fmt.Errorf("divide into rings %q: %w", text, err)
		}
		if n = min(n, len(left)); n > 0 {
			rings = append(rings, Ring{Nodes: left[:n]})
			left = left[n:]
		}
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("divide into rings %q: %s of %s nodes are in none; end it with rest",
			text, quantity.Count(len(left)), quantity.Count(len(nodes)))
	}
	return rings, nil
}

func ringSize(part string, all, left int) (int, error) {
	if part == "rest" {
		return left, nil
	}
	if text, ok := strings.CutSuffix(part, "%"); ok {
		p, err := strconv.Atoi(text)
		if err != nil || p < 1 || p > 100 {
			return 0, fmt.Errorf("%q is not a percentage from 1 to 100", part)
		}
		return (all*p + 99) / 100, nil // rounded up: a ring is never empty
	}
	n, err := strconv.Atoi(part)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q must be a number of nodes, a percentage such as 10%%, or rest", part)
	}
	return n, nil
}
