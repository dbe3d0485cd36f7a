package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"

	"dim/internal/lab/netns"
)

// ClusterSpec describes a cluster to start.
type ClusterSpec struct {
	Name        string       // of the network namespace
	Dir         string       // directory for the data directory, keys and logs
	Bin         string       // directory of dim and dim-init-ARCH
	Master      string       // directory of the master, which the server sees as MasterAt
	MasterAt    string       // path of the master in the description
	Description string       // path of the XML file
	Server      string       // name of the server in the description
	Address     netip.Prefix // its address
}

// Cluster is one server process in a network namespace, and ssh to its nodes. Only one goroutine may call its methods.
type Cluster struct {
	*Server
	Net *netns.Net
	SSH *SSH
	Key string // the line for a master's authorized_keys
}

// Up makes the network and the data directory and starts the server. The caller must call Down.
func Up(ctx context.Context, spec ClusterSpec) (*Cluster, error) {
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, err
	}
	net, err := netns.New(spec.Name, spec.Address)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Net: net, Server: NewServer(ServerSpec{
		Net: net, Dir: spec.Dir, Bin: spec.Bin, Master: spec.Master, MasterAt: spec.MasterAt,
		Description: spec.Description, As: spec.Server, Address: spec.Address.Addr(),
	})}
	if c.SSH, c.Key, err = NewSSH(net, spec.Dir); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	if _, err := os.Stat(c.data()); errors.Is(err, os.ErrNotExist) {
		if _, err := c.Dim(ctx, "init"); err != nil {
			return nil, errors.Join(err, c.Down())
		}
	}
	if err := c.Start(ctx); err != nil {
		return nil, errors.Join(err, c.Down())
	}
	return c, nil
}

// Down ends the server and removes the network. It does not remove the directory.
func (c *Cluster) Down() error {
	c.Stop()
	return c.Net.Close()
}
