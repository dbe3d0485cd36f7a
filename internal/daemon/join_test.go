package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dim/internal/backup"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/membership"
	"dim/internal/peer"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// withServers adds the image servers is1, is2, … of loopback to the description of a head, and returns sites for them
// that have not joined.
func withServers(t *testing.T, head *site, addrs ...string) []*site {
	t.Helper()
	var list []*site
	var text strings.Builder
	for i, addr := range addrs {
		s := newSite(t, addr)
		testkit.Must(t, os.RemoveAll(s.data))
		s.name, s.given = "", false
		list = append(list, s)
		fmt.Fprintf(&text, `<server name="is%d" roles="image" dhcp="off" nfs-port="%d" http-port="%d" tftp-port="%d"
  api-port="%d"><interface network="boot" address="%s"/></server>`, i+1, s.ports[0], s.ports[1], s.ports[2],
			s.ports[3], addr)
	}
	head.describe("", "<taxonomy>", text.String()+"<taxonomy>")
	return list
}

// token makes a token on a head.
func (s *site) token(r control.TokenRequest) control.Token {
	s.t.Helper()
	return testkit.Value(s.client().NewToken(s.t.Context(), r))(s.t)
}

// join lets a site join with a token.
func (s *site) join(tok control.Token, name string, existing pki.Existing) (peer.Identity, error) {
	who, warning, err := Join(s.t.Context(), membership.Join{
		Data: s.data, URL: tok.URL, Token: tok.Token, Name: cluster.ServerName(name), Existing: existing,
	})
	if warning != "" {
		s.t.Errorf("a warning: %s", warning)
	}
	return who, err
}

// server returns what a site says of a server.
func (s *site) server(name string) control.Server {
	s.t.Helper()
	for _, v := range testkit.Value(s.client().Servers(s.t.Context()))(s.t) {
		if v.Name == name {
			return v
		}
	}
	s.t.Fatalf("there is no server %s", name)
	return control.Server{}
}

func TestAServerJoinsAndIsRemoved(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	is1 := withServers(t, head, "127.0.0.3")[0]
	head.start()
	who := testkit.Value(is1.join(head.token(control.TokenRequest{For: "is1"}), "is1", pki.KeepIdentity))(t)
	if who.Name != "is1" || !who.Is(cluster.RoleImage) || who.Is(cluster.RoleHead) {
		t.Errorf("it joined as %+v", who)
	}
	for _, name := range []string{"ca/key.pem", "ca/servers", "ca/nodes", "joining"} {
		if _, err := os.Stat(filepath.Join(is1.data, name)); err == nil {
			t.Errorf("an image server has %s", name)
		}
	}
	if s := head.server("is1"); s.ID != who.ID || s.Joined.IsZero() {
		t.Errorf("the head says %+v", s)
	}
	is1.given, is1.file = true, filepath.Join(is1.data, "none.xml")
	is1.start() // as the unit does: without --as, and with a file that only the head has
	if p := is1.problem("description"); p.Text != "" {
		t.Errorf("a problem: %+v", p)
	}
	testkit.Must(t, is1.stop())
	is1.given = false
	is1.start() // with neither --as nor --cluster
	if st := is1.status(); st.Server != "is1" || st.Cluster != "small" {
		t.Errorf("it serves as %s of %s", st.Server, st.Cluster)
	}
	remove := control.ServerChange{Do: "remove", DryRun: true}
	done := testkit.Value(head.client().ChangeServer(t.Context(), "is1", remove))(t)
	if done.Server.ID != who.ID || head.server("is1").ID == "" {
		t.Errorf("a dry run: %+v, then %+v", done, head.server("is1"))
	}
	testkit.Value(head.client().ChangeServer(t.Context(), "is1", control.ServerChange{Do: "remove"}))(t)
	if s := head.server("is1"); s.ID != "" {
		t.Errorf("after it was removed: %+v", s)
	}
	testkit.Must(t, head.stop())
	head.start()
	if s := head.server("is1"); s.ID != "" {
		t.Errorf("after a restart: %+v", s)
	}
}

func TestAServerIsDrained(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	head.start()
	testkit.Eventually(t, "the head is in the shared state", func() bool { return head.server("head").ID != "" })
	change := func(do string) control.ServerChanged {
		return testkit.Value(head.client().ChangeServer(t.Context(), "head", control.ServerChange{Do: do}))(t)
	}
	if done := change("drain"); head.server("head").Drained.IsZero() || done.Note == "" {
		t.Errorf("drained: %+v, %+v", done, head.server("head"))
	}
	testkit.Must(t, head.stop())
	head.start()
	if head.server("head").Drained.IsZero() {
		t.Error("after a restart it is not drained")
	}
	if change("undrain"); !head.server("head").Drained.IsZero() {
		t.Errorf("undrained: %+v", head.server("head"))
	}
}

func TestAJoinIsRefused(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	sites := withServers(t, head, "127.0.0.3", "127.0.0.4")
	is1, is2 := sites[0], sites[1]
	head.start()
	other := newSite(t, "127.0.0.5")
	other.start()
	used := head.token(control.TokenRequest{})
	testkit.Value(is1.join(used, "is1", pki.KeepIdentity))(t)
	late := head.token(control.TokenRequest{Valid: time.Nanosecond})
	forOther := head.token(control.TokenRequest{For: "is1"})
	stranger := other.token(control.TokenRequest{})
	stranger.URL = head.token(control.TokenRequest{}).URL
	damaged := head.token(control.TokenRequest{})
	damaged.Token = damaged.Token[:len(damaged.Token)-1]
	headToken := head.token(control.TokenRequest{Roles: []string{"head", "head"}})
	silent := head.token(control.TokenRequest{})
	silent.URL = "https://127.0.0.2:1"
	for _, tt := range []struct {
		what  string
		token control.Token
		name  string
		want  string
	}{
		{"used", used, "is2", "join " + used.URL + ": the token was used already"},
		{"for a head that is off", silent, "is2", "join https://127.0.0.2:1: dial tcp 127.0.0.2:1: connect: "},
		{"late", late, "is2", "has expired"},
		{"for another server", forOther, "is2", "the token is for is1"},
		{"of another cluster", stranger, "is2", "not a head of the cluster that the token is from"},
		{"damaged", damaged, "is2", "damaged or incomplete"},
		{"for other roles", headToken, "is2", "is2 has the role image"},
		{"not declared", head.token(control.TokenRequest{}), "is9", "is9 is not in the description"},
		{"the head itself", headToken, "head", "that was asked"},
		{"a name that has joined", head.token(control.TokenRequest{}), "is1", "has joined as is1 already"},
	} {
		_, err := is2.join(tt.token, tt.name, pki.KeepIdentity)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
	}
	if err := pki.Check(is2.data); !errors.Is(err, pki.ErrNotInitialised) {
		t.Errorf("a directory that has not joined: %v", err)
	}
	_, err := head.client().NewToken(t.Context(), control.TokenRequest{Roles: []string{"image", "king"}})
	if err == nil || !strings.Contains(err.Error(), `"king" is not a role`) {
		t.Errorf("a token for a role that does not exist: %v", err)
	}
	_, err = is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity)
	if !errors.Is(err, pki.ErrInitialised) {
		t.Errorf("a machine that has joined: %v", err)
	}
}

func TestAMachineTakesThePlaceOfAnother(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	sites := withServers(t, head, "127.0.0.3", "127.0.0.4")
	head.start()
	first := testkit.Value(sites[0].join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	second := testkit.Value(sites[1].join(head.token(control.TokenRequest{}), "is1", pki.ReplaceIdentity))(t)
	if first.ID == second.ID || head.server("is1").ID != second.ID {
		t.Errorf("%+v, then %+v, and the head has %+v", first, second, head.server("is1"))
	}
	again := testkit.Value(sites[1].join(head.token(control.TokenRequest{}), "is1", pki.ReplaceIdentity))(t)
	if again.ID == second.ID || head.server("is1").ID != again.ID {
		t.Errorf("the same machine again: %+v", again)
	}
}

func TestTwoCannotUseOneToken(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	sites := withServers(t, head, "127.0.0.3", "127.0.0.4")
	head.start()
	tok := head.token(control.TokenRequest{})
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, s := range sites {
		wg.Go(func() { _, errs[i] = s.join(tok, fmt.Sprintf("is%d", i+1), pki.KeepIdentity) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("both or none: %v", errs)
	}
}

// TestAJoinThatWasCutIsRepeated lets the head enter a server whose machine gets no answer.
func TestAJoinThatWasCutIsRepeated(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	is1 := withServers(t, head, "127.0.0.3")[0]
	head.start()
	first := testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	// What the directory was before the answer came: only the key.
	key := testkit.Value(os.ReadFile(filepath.Join(is1.data, "identity", "key.pem")))(t)
	testkit.Must(t, os.RemoveAll(is1.data), os.MkdirAll(filepath.Join(is1.data, "joining"), 0o700),
		os.WriteFile(filepath.Join(is1.data, "joining", "key.pem"), key, 0o600))
	second := testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	if first.ID != second.ID {
		t.Errorf("it was %+v, and is %+v", first, second)
	}
	is1.start()
}

// age replaces the certificate of a site by one that was made at a time, as if it had been off since.
func (s *site) age(head *site, made time.Time) {
	s.t.Helper()
	own, authority := testkit.Value(pki.Open(s.data))(s.t), testkit.Value(pki.Open(head.data))(s.t).Authority()
	key := testkit.Value(pki.ParseRequest(testkit.Value(own.Request())(s.t)))(s.t)
	testkit.Must(s.t, own.Install(testkit.Value(authority.Certify(key, own.Identity(), made))(s.t)))
}

func (s *site) expires() time.Time {
	s.t.Helper()
	return testkit.Value(pki.Open(s.data))(s.t).Expires()
}

func TestACertificateIsRenewed(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	head := newSite(t, "127.0.0.2")
	is1 := withServers(t, head, "127.0.0.3")[0]
	head.start()
	testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	for what, made := range map[string]time.Time{
		"half of its time is over":  time.Now().Add(-16 * day),
		"it has expired":            time.Now().Add(-100 * day),
		"a clock was wrong":         time.Now().Add(100 * day),
		"it may be renewed to here": time.Now().Add(-209 * day),
	} {
		is1.age(head, made)
		is1.start()
		testkit.Eventually(t, what+": it is renewed", func() bool {
			e := is1.expires()
			return e.After(time.Now().Add(29*day)) && e.Before(time.Now().Add(31*day))
		})
		testkit.Must(t, is1.stop())
	}
	is1.age(head, time.Now().Add(-16*day))
	testkit.Value(head.client().ChangeServer(t.Context(), "is1", control.ServerChange{Do: "remove"}))(t)
	is1.start()
	testkit.Eventually(t, "a server that was removed is told so", func() bool {
		p := is1.problem("shared state")
		return strings.Contains(p.Text, "this server was removed from the cluster at") &&
			strings.Contains(p.Hint, "dim token --for is1")
	})
	testkit.Must(t, head.stop())
	head.age(head, time.Now().Add(-200*day))
	head.start()
	if !head.expires().After(time.Now().Add(29 * day)) {
		t.Error("the head has not renewed its own")
	}
}

// A head that has lost what was declared lists the servers that call it again: they can be removed then, and no other
// machine takes the name of one beside it.
func TestServersAreListedAgainAfterTheSharedStateIsLost(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	is1 := withServers(t, head, "127.0.0.3")[0]
	head.start()
	who := testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	testkit.Must(t, head.stop(), os.RemoveAll(filepath.Join(head.data, "coord")),
		os.Remove(filepath.Join(head.data, "state.json")))
	head.start()
	is1.start()
	testkit.Eventually(t, "the head lists is1", func() bool { return head.server("is1").ID == who.ID })
	testkit.Value(head.client().ChangeServer(t.Context(), "is1", control.ServerChange{Do: "remove"}))(t)
	testkit.Eventually(t, "is1 is refused", func() bool {
		return strings.Contains(is1.problem("shared state").Text, "this server was removed from the cluster at")
	})
	refused := func() int { return strings.Count(head.log.String(), `level=WARN msg="request of a server refused"`) }
	calls := func() int { return strings.Count(head.log.String(), `msg="request of a server refused"`) }
	testkit.Eventually(t, "is1 has called again and again", func() bool { return calls() > 3 })
	if n := refused(); n != 1 {
		t.Errorf("the head has logged %d warnings of a server that was removed", n)
	}
	if s := head.server("is1"); s.ID != "" {
		t.Errorf("is1 was removed, and the head has %+v", s)
	}
}

// TestAHeadIsLost replaces the machine of a head, once with a copy of its authority and once with nothing.
func TestAHeadIsLost(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	is1 := withServers(t, head, "127.0.0.3")[0]
	head.start()
	testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	testkit.Must(t, head.stop(), os.Rename(filepath.Join(head.data, "ca"), head.data+".ca"))
	replace := func() {
		testkit.Must(t, os.RemoveAll(head.data))
		testkit.Value(pki.Init(head.data))(t)
	}

	replace()
	ca := filepath.Join(head.data, "ca")
	testkit.Must(t, os.RemoveAll(ca), os.Rename(head.data+".ca", ca))
	head.start()
	is1.age(head, time.Now().Add(-40*24*time.Hour))
	is1.start()
	testkit.Eventually(t, "it knows the new head", func() bool { return is1.expires().After(time.Now()) })
	testkit.Must(t, is1.stop(), head.stop())

	replace()
	head.start()
	kept := filepath.Join(is1.data, "store", "kept")
	testkit.Must(t, os.WriteFile(kept, nil, 0o600))
	who := testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.ReplaceIdentity))(t)
	if _, err := os.Stat(kept); err != nil || head.server("is1").ID != who.ID {
		t.Errorf("%v, and the head has %+v", err, head.server("is1"))
	}
	is1.start()
}

// TestARemovedServerIsRefusedByAll checks it with the certificate of the removed server, on another image server.
func TestARemovedServerIsRefusedByAll(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	sites := withServers(t, head, "127.0.0.3", "127.0.0.4")
	is1, is2 := sites[0], sites[1]
	head.start()
	testkit.Value(is1.join(head.token(control.TokenRequest{}), "is1", pki.KeepIdentity))(t)
	testkit.Value(is2.join(head.token(control.TokenRequest{}), "is2", pki.KeepIdentity))(t)
	is2.start()
	described := testkit.Value(cluster.Load(head.file))(t)
	client := peer.NewClient(peer.Options{
		Credentials: testkit.Value(pki.Open(is1.data))(t), Declared: func() *cluster.Cluster { return described },
		Refused: func(peer.Identity) error { return nil }, Log: slog.New(slog.DiscardHandler),
	})
	defer client.Close()
	status := func(server cluster.ServerName) (int, string) {
		hc, base := client.To(server)
		resp, err := hc.Post(base+"/peer/v1/trees", "application/json", strings.NewReader("{}"))
		if err != nil { // the open connections of a removed server are closed
			return 0, err.Error()
		}
		defer resp.Body.Close()
		return resp.StatusCode, string(testkit.Value(io.ReadAll(io.LimitReader(resp.Body, 1000)))(t))
	}
	for _, server := range []cluster.ServerName{"head", "is2"} {
		if code, text := status(server); code == 0 || code == http.StatusForbidden || code == http.StatusUnauthorized {
			t.Errorf("%s refuses a server of the cluster: %s", server, text)
		}
	}
	testkit.Value(head.client().ChangeServer(t.Context(), "is1", control.ServerChange{Do: "remove"}))(t)
	for _, server := range []cluster.ServerName{"head", "is2"} {
		testkit.Eventually(t, string(server)+" refuses it", func() bool {
			code, text := status(server)
			return code == http.StatusForbidden && strings.Contains(text, "was revoked")
		})
	}
}

// The backup of a head is older than a join in place of another machine and than the removal of a server. Of the first
// the head is told by the machine that calls, of the second by the servers that know better.
func TestAHeadFromAnOldBackupFindsWhoHasJoinedSince(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	sites := withServers(t, head, "127.0.0.3", "127.0.0.4", "127.0.0.5")
	is1, is2, is3 := sites[0], sites[1], sites[2]
	head.start()
	join := func(s *site, name string, existing pki.Existing) peer.Identity {
		return testkit.Value(s.join(head.token(control.TokenRequest{For: name}), name, existing))(t)
	}
	old := join(is1, "is1", pki.KeepIdentity)
	join(is2, "is2", pki.KeepIdentity)
	join(is3, "is3", pki.KeepIdentity)
	backupDir := filepath.Join(t.TempDir(), "backup")
	head.backupTo(backupDir)
	who := join(is1, "is1", pki.ReplaceIdentity)
	is2.start()
	testkit.Eventually(t, "is2 knows that is3 has joined", func() bool { return is2.server("is3").ID != "" })
	testkit.Value(head.client().ChangeServer(t.Context(), "is3", control.ServerChange{Do: "remove"}))(t)
	testkit.Eventually(t, "is2 knows that is3 was removed", func() bool { return is2.server("is3").ID == "" })

	testkit.Must(t, head.stop())
	next := head.successor(filepath.Join(t.TempDir(), "data"))
	testkit.Value(backup.Restoration{From: backupDir}.Restore(t.Context(), next.data))(t)
	next.start()
	is1.start()
	testkit.Eventually(t, "the head tells of the machine that it does not know", func() bool {
		p := next.problem("server is1")
		return strings.Contains(p.Text, "two machines have joined as is1") &&
			strings.Contains(p.Hint, "dim server rm is1")
	})
	if p := is1.problem("shared state"); !strings.Contains(p.Text, "another machine is is1 by the shared state") {
		t.Errorf("is1 says %+v", p)
	}
	testkit.Eventually(t, "is2 tells of the server that counts again", func() bool {
		p := is2.problem("shared state")
		return strings.Contains(p.Text, "server is3 was removed at") && strings.Contains(p.Hint, "dim server rm is3")
	})
	if id := next.server("is1").ID; id != old.ID {
		t.Errorf("the head has let %s in", id)
	}
	for _, name := range []string{"is1", "is3"} {
		testkit.Value(next.client().ChangeServer(t.Context(), name, control.ServerChange{Do: "remove"}))(t)
	}
	testkit.Eventually(t, "the machine that joined last is let in", func() bool {
		return next.server("is1").ID == who.ID && is1.status().Coord.OK
	})
	testkit.Eventually(t, "is2 has no problem with is3", func() bool { return is2.problem("shared state").Text == "" })
}
