package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"dim/internal/cluster"
)

// Identity is who a server is: what its certificate says of it.
type Identity struct {
	Cluster string             // the first 20 hexadecimal digits of the digest of the root's public key
	ID      string             // random; a server that joins again gets another one
	Name    cluster.ServerName // in the description; "": the server was never started
	Roles   []cluster.Role     // that it may have, in order of name
}

// Is reports whether the server may have a role.
func (i Identity) Is(role cluster.Role) bool { return slices.Contains(i.Roles, role) }

// The URIs in certificates: dim://server.CLUSTER.dim/ID/NAME/ROLE+ROLE. Name constraints of X.509 are about the host.
const (
	scheme     = "dim"
	hostServer = "server."
	hostNode   = "node."
	hostEnd    = ".dim"
)

// The pattern of the path has the names that a description may have.
var identityPath = regexp.MustCompile(`^/([a-z0-9]{1,64})/([A-Za-z0-9_-]{1,63})/([a-z+]{1,64})$`)

// uri returns the URI of an identity.
func (i Identity) uri() *url.URL {
	roles := make([]string, len(i.Roles))
	for n, r := range i.Roles {
		roles[n] = string(r)
	}
	slices.Sort(roles)
	return &url.URL{
		Scheme: scheme, Host: hostServer + i.Cluster + hostEnd,
		Path: "/" + i.ID + "/" + string(i.Name) + "/" + strings.Join(slices.Compact(roles), "+"),
	}
}

// parseURI is the inverse of uri. It accepts nothing but what uri returns.
func parseURI(u *url.URL) (Identity, error) {
	host, ok := strings.CutPrefix(u.Host, hostServer)
	id, end := strings.CutSuffix(host, hostEnd)
	m := identityPath.FindStringSubmatch(u.Path)
	if !ok || !end || m == nil {
		return Identity{}, fmt.Errorf("%q is not the URI of a server", shortened(u.String()))
	}
	made := Identity{Cluster: id, ID: m[1], Name: cluster.ServerName(m[2])}
	for role := range strings.SplitSeq(m[3], "+") {
		made.Roles = append(made.Roles, cluster.Role(role))
	}
	if *made.uri() != *u {
		return Identity{}, fmt.Errorf("%q is not the URI of a server", shortened(u.String()))
	}
	return made, nil
}

// shortened returns the beginning of a text that a stranger has sent.
func shortened(text string) string { return text[:min(len(text), 80)] }

// identityOf returns who a certificate is of. It checks nothing else.
func identityOf(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, errors.New("the certificate is not one of a server: it has not exactly one URI")
	}
	return parseURI(cert.URIs[0])
}
