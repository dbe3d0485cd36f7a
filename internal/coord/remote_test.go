package coord

import (
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"dim/internal/testkit"
)

func TestAnEtcdMustNotBeOpenToAnybody(t *testing.T) {
	one := func(endpoint string, r Remote) Remote {
		r.Endpoints = []string{endpoint}
		return r
	}
	user, ca, cert := Remote{User: "dim", PasswordFile: "p"}, Remote{CA: "ca.pem"}, Remote{Cert: "c.pem", Key: "k.pem"}
	for _, tt := range []struct {
		name string
		r    Remote
		want string // part of the error; "": none
	}{
		{"none", Remote{}, ""},
		{"TLS and authorities", one("https://etcd1:2379", ca), ""},
		{"TLS and a certificate", one("https://etcd1:2379", cert), ""},
		{"TLS and a user", one("https://etcd1:2379", user), ""},
		{"a unix socket", one("unix:///run/etcd.sock", Remote{}), ""},
		{"a user on this machine", one("http://127.0.0.1:2379", user), ""},
		{"TLS only", one("https://etcd1:2379", Remote{}), "nothing proves"},
		{"no TLS", one("http://etcd1:2379", Remote{}), "not encrypted"},
		{"a password in clear text", one("http://10.77.0.9:2379", user), "not encrypted"},
		{"authorities without TLS", one("http://[fd00::1]:2379", ca), "not encrypted"},
		{"this machine, open to its users", one("http://localhost:2379", Remote{}), "nothing proves"},
		{"one of two", Remote{Endpoints: []string{"https://a:2379", "http://b:2379"}, CA: "ca.pem"}, "http://b:2379"},
		{"no URL", one("etcd1:2379", ca), "not a URL"},
		{"no key", one("https://etcd1:2379", Remote{Cert: "c.pem"}), "belong together"},
		{"no password", one("https://etcd1:2379", Remote{User: "dim"}), "belong together"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.r.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestAUserOfEtcdIsUsed(t *testing.T) {
	endpoint := startLocked(t, "secret")
	file := filepath.Join(t.TempDir(), "password")
	for _, tt := range []struct {
		password string
		works    bool
	}{{"secret\n", true}, {"wrong\n", false}, {"\n", false}} {
		testkit.Must(t, os.WriteFile(file, []byte(tt.password), 0o600))
		r := Remote{Endpoints: []string{endpoint}, User: "root", PasswordFile: file}
		c, err := Open(t.Context(), Options{Remote: r, Timeout: 30 * time.Second})
		if err == nil {
			_, err = c.Snapshot(t.Context())
			testkit.Must(t, c.Close())
		}
		if (err == nil) != tt.works {
			t.Errorf("with the password %q: %v", tt.password, err)
		}
		if errors.Is(err, ErrUnavailable) {
			t.Errorf("with the password %q etcd is called unavailable: %v", tt.password, err)
		}
	}
	c := testkit.Value(Open(t.Context(), Options{Remote: Remote{Endpoints: []string{endpoint}}}))(t)
	defer c.Close()
	if _, err := c.Snapshot(t.Context()); err == nil {
		t.Error("the state can be read without a user")
	}
}

func TestFilesOfTLSAreRead(t *testing.T) {
	none, empty := filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "empty")
	testkit.Must(t, os.WriteFile(empty, nil, 0o600))
	for _, r := range []Remote{{CA: none}, {CA: empty}, {Cert: none, Key: none}, {User: "x", PasswordFile: none}} {
		r.Endpoints = []string{"https://127.0.0.1:1"}
		c, err := Open(t.Context(), Options{Remote: r})
		if err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%+v: %v", r, err)
		}
		if c != nil {
			t.Errorf("%+v: it is open", r)
		}
	}
}

// startLocked runs an etcd that serves nobody but its user root.
func startLocked(t *testing.T, password string) (endpoint string) {
	t.Helper()
	ln := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(t)
	at := url.URL{Scheme: "http", Host: ln.Addr().String()}
	testkit.Must(t, ln.Close())
	config := embed.NewConfig()
	config.Dir, config.LogLevel, config.LogOutputs = t.TempDir(), "fatal", []string{"/dev/null"}
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{at}, []url.URL{at}
	config.ListenPeerUrls, config.BcryptCost = nil, 4
	e := testkit.Value(embed.StartEtcd(config))(t)
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	c := testkit.Value(clientv3.New(clientv3.Config{Endpoints: []string{at.String()}}))(t)
	defer c.Close()
	testkit.Value(c.RoleAdd(t.Context(), "root"))(t)
	testkit.Value(c.UserAdd(t.Context(), "root", password))(t)
	testkit.Value(c.UserGrantRole(t.Context(), "root", "root"))(t)
	testkit.Value(c.AuthEnable(t.Context()))(t)
	return at.String()
}
