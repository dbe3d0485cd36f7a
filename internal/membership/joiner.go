package membership

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/peer"
	"dim/internal/pki"
)

// Join is a machine that is to become a server of a cluster.
type Join struct {
	Data      string             // its data directory, which is made if there is none
	StateFile string             // in it: where the description is kept
	URL       string             // of a head
	Token     string             // that a head has made
	Name      cluster.ServerName // of the server that it is to be
	Existing  pki.Existing       // what becomes of the identity that the data directory has
}

const (
	// connectTimeout bounds the connection to the head, and answerTimeout the whole call.
	connectTimeout = 10 * time.Second
	answerTimeout  = 2 * time.Minute
	// clockDifference is how far the clocks of a new server and the head may differ without a warning.
	clockDifference = 5 * time.Minute
)

// Run makes the machine a server of the cluster, and returns who it is then. The key is made here and never leaves the
// machine. An interrupted Run can be repeated, with a new token if the one before was used up. It does nothing on a
// machine that has joined with this token. The caller keeps other processes from the data directory. The error is one
// of pki.BeginJoin or a control.Error.
func (j Join) Run(ctx context.Context) (who peer.Identity, warning string, err error) {
	t, err := parseToken(j.Token)
	if err != nil {
		return who, "", control.Errorf(control.Invalid, "%v", err)
	}
	address, err := j.address()
	if err != nil {
		return who, "", err
	}
	used := digestOf(t.secret[:])
	if c, err := pki.Open(j.Data); err == nil && c.JoinedWith(used) { // Open completes a join
		return c.Identity(), "", nil
	}
	local, err := pki.BeginJoin(j.Data, j.Existing)
	if err != nil {
		return who, "", err
	}
	request, err := local.Request()
	if err != nil {
		return who, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	hc, check := stranger(t, nil)
	in := joinRequest{
		Secret: t.secret[:], Name: j.Name, Request: request, Replace: j.Existing == pki.ReplaceIdentity,
	}
	answer, err := post[joined](ctx, hc, "https://"+address+joinPath, in)
	if err != nil {
		return who, "", fmt.Errorf("join %s: %w", j.URL, err)
	}
	complete := pki.Answer{Root: answer.Root, Chain: []byte(answer.Chain), Token: used}
	if answer.Head {
		if complete.Authority, err = j.authority(ctx, t, local, complete.Chain, address); err != nil {
			return who, "", fmt.Errorf("join: %w", err)
		}
	}
	err = local.Complete(complete, func(id peer.Identity) error {
		if who = id; id.Name != j.Name {
			return fmt.Errorf("join: the head has certified this machine as %s", id.Name)
		}
		return j.keepDeclared(&answer)
	})
	return who, check.warning(), err
}

// address returns the host and port of the URL.
func (j Join) address() (string, error) {
	u, err := url.Parse(j.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return "", control.Errorf(control.Invalid, "%q is not the URL of a head, such as https://10.0.0.1:7117", j.URL).
			WithHint("copy the whole line that dim token printed")
	}
	port := u.Port()
	if port == "" {
		port = "7117"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// authority asks the head for what certifies servers. This machine proves by its new certificate that it is a head.
func (j Join) authority(
	ctx context.Context, t token, local *pki.Joining, chain []byte, address string,
) ([]byte, error) {
	own, err := local.Certificate(chain)
	if err != nil {
		return nil, err
	}
	hc, _ := stranger(t, own)
	answer, err := post[shared](ctx, hc, "https://"+address+authorityPath, struct{}{})
	return answer.Authority, err
}

// keepDeclared keeps the description of the cluster, with which the server starts, and which heads it has.
func (j Join) keepDeclared(answer *joined) error {
	s, err := coord.LoadState(j.StateFile)
	if err != nil {
		s = coord.State{}
	}
	s.Description, s.Revision, s.Servers = &answer.Description, 0, answer.Heads
	s.Superseded = coord.Revocation{}
	return coord.SaveState(j.StateFile, s)
}

// clockCheck compares the clock of the head with this machine's.
type clockCheck struct{ behind time.Duration }

func (c *clockCheck) warning() string {
	if c.behind.Abs() < clockDifference {
		return ""
	}
	side := "behind"
	if c.behind < 0 {
		side = "ahead of"
	}
	return fmt.Sprintf("the clock of this machine is %v %s the head's: certificates need right clocks",
		c.behind.Abs().Round(time.Second), side)
}

// stranger returns a client that talks only to a head of the cluster that a token is from. own is its certificate; nil:
// it has none yet.
func stranger(t token, own *tls.Certificate) (*http.Client, *clockCheck) {
	check := &clockCheck{}
	transport := &http.Transport{
		DialContext: (&net.Dialer{Timeout: connectTimeout}).DialContext, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return cmp.Or(own, &tls.Certificate{}), nil
			},
			InsecureSkipVerify: true, // VerifyConnection does it, by the digest in the token
			VerifyConnection: func(cs tls.ConnectionState) error {
				return pki.VerifyHead(cs.PeerCertificates, t.root)
			},
		},
	}
	return &http.Client{Transport: dated{transport, check}}, check
}

// dated is a transport that notes the date of an answer.
type dated struct {
	http.RoundTripper
	check *clockCheck
}

// RoundTrip implements http.RoundTripper.
func (d dated) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(r)
	if err == nil {
		if at, perr := http.ParseTime(resp.Header.Get("Date")); perr == nil {
			d.check.behind = time.Until(at)
		}
	}
	return resp, err
}
