package metrics

import (
	"slices"
	"strings"
	"sync"

	"dim/internal/cluster"
	"dim/internal/meter"
)

// class is a kind of node whose calls are counted apart: one image, one set of groups. Thousands of nodes are few
// classes.
type class struct{ image, groups string }

// maxClasses bounds the classes: a description may put every node into a group of its own.
const maxClasses = 64

// Classes are the classes of the nodes that this server has served, numbered from 1. The zero Classes has none.
type Classes struct {
	mu  sync.Mutex
	all map[class]meter.Class
}

// Of returns the class of node n when it runs im.
func (c *Classes) Of(n *cluster.Node, im *cluster.Image) meter.Class {
	var groups []string
	for _, g := range n.Groups {
		groups = append(groups, g.Name)
	}
	slices.Sort(groups)
	return c.get(class{string(im.Name), strings.Join(groups, ",")})
}

func (c *Classes) get(k class) meter.Class {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= maxClasses && c.all[k] == 0 {
		k = class{"other", ""}
	}
	if c.all[k] == 0 {
		if c.all == nil {
			c.all = map[class]meter.Class{}
		}
		c.all[k] = meter.Class(len(c.all) + 1)
	}
	return c.all[k]
}

// each calls f for every class.
func (c *Classes) each(f func(class, meter.Class)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, of := range c.all {
		f(k, of)
	}
}
