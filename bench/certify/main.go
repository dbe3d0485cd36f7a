// Certify makes the data directory of an image server that has joined the cluster of a head on the same machine: it
// uses the head's keys. Benchmarks with dozens of servers save themselves as many tokens.
//
//	certify HEAD-DATA DATA NAME
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"dim/internal/cluster"
	"dim/internal/pki"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: certify HEAD-DATA DATA NAME")
		os.Exit(2)
	}
	if err := certify(os.Args[1], os.Args[2], cluster.ServerName(os.Args[3])); err != nil {
		fmt.Fprintln(os.Stderr, "certify:", err)
		os.Exit(1)
	}
}

func certify(head, data string, name cluster.ServerName) error {
	if _, err := pki.Init(data); err != nil {
		return err
	}
	ca := filepath.Join(data, "ca")
	if err := os.RemoveAll(ca); err != nil {
		return err
	}
	if err := os.CopyFS(ca, os.DirFS(filepath.Join(head, "ca"))); err != nil {
		return err
	}
	c, err := pki.Open(data)
	if err != nil {
		return err
	}
	if err := c.Assume(name, []cluster.Role{cluster.RoleImage}, time.Now()); err != nil {
		return err
	}
	for _, part := range []string{"servers", "nodes", "key.pem"} { // the keys stay on the head
		if err := os.RemoveAll(filepath.Join(ca, part)); err != nil {
			return err
		}
	}
	return nil
}
