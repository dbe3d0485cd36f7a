// Package zones makes the zones of a cluster: the names of its servers and nodes, and the pointers of their addresses.
//
// It must not know how questions are answered.
package zones

import (
	"log/slog"
	"slices"
	"sync"

	"dim/internal/cluster"
	"dim/internal/cluster/export"
	"dim/internal/dns"
	"dim/internal/follow"
)

// Source makes zones of the description that holds, and keeps them until another one holds.
type Source struct {
	Now func() *follow.Declared // may return nil
	Log *slog.Logger

	mu   sync.Mutex
	from *cluster.Cluster
	made *dns.Zones
}

// Zones returns the zones of the description that holds now; nil: there are none. It may be called by several
// goroutines.
func (s *Source) Zones() *dns.Zones {
	now := s.Now()
	if now == nil || now.Cluster == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.from != now.Cluster {
		serial := uint32(0)
		if d := now.State.Description; d != nil {
			serial = uint32(d.Applied.Unix())
		}
		z, err := zonesOf(now.Cluster, serial)
		if err != nil {
			s.Log.Warn("names are not in the zones", "error", err)
		}
		s.from, s.made = now.Cluster, z
	}
	return s.made
}

// zonesOf returns the zones of a cluster: that of its domain, and the reverse zones of its addresses (export.Reverse);
// nil if no server answers DNS. Names that are too long for DNS are left out; the error tells the first of them.
func zonesOf(c *cluster.Cluster, serial uint32) (*dns.Zones, error) {
	if c.Domain == "" {
		return nil, nil
	}
	var servers []string
	for _, s := range c.Servers {
		if s.DNS {
			servers = append(servers, string(s.Name)+"."+c.Domain)
		}
	}
	if len(servers) == 0 {
		return nil, nil
	}
	z, err := dns.NewZones(serial, servers...)
	if err != nil {
		return nil, err
	}
	if err := z.AddZone(c.Domain); err != nil {
		return nil, err
	}
	var reverse []string
	for name, at := range export.Names(c) {
		full := name + "." + c.Domain
		zone, rest := export.Reverse(at)
		if !slices.Contains(reverse, zone) {
			reverse = append(reverse, zone)
			err = firstError(err, z.AddZone(zone))
		}
		err = firstError(err, z.AddAddress(full, at))
		err = firstError(err, z.AddPointer(rest+"."+zone, full))
	}
	return z, err
}

func firstError(first, next error) error {
	if first != nil {
		return first
	}
	return next
}
