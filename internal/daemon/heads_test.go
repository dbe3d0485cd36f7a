package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/pki"
	"dim/internal/testkit"
)

// withHeads adds the heads head2, head3, … of loopback to the description of a head, and returns sites for them that
// have not joined.
func withHeads(t *testing.T, head *site, addrs ...string) []*site {
	t.Helper()
	var list []*site
	var text strings.Builder
	for i, addr := range addrs {
		s := newSite(t, addr)
		testkit.Must(t, os.RemoveAll(s.data))
		s.name, s.given = "", false
		list = append(list, s)
		fmt.Fprintf(&text, `<server name="head%d" roles="head" dhcp="off" nfs-port="%d" http-port="%d" tftp-port="%d"
  api-port="%d" etcd-port="%d"><interface network="boot" address="%s"/></server>`, i+2, s.ports[0], s.ports[1],
			s.ports[2], s.ports[3], freePort(t, addr), addr)
	}
	edit := strings.NewReplacer(
		`roles="head image"`, fmt.Sprintf(`roles="head image" etcd-port="%d"`, freePort(t, head.addr)),
		"<taxonomy>", text.String()+"<taxonomy>")
	before := testkit.Value(os.ReadFile(head.file))(t)
	testkit.Must(t, os.WriteFile(head.file, []byte(edit.Replace(string(before))), 0o600))
	return list
}

// joinAsHead lets s join as a head with a token of by, and starts it until it votes on the shared state.
func (s *site) joinAsHead(by *site, name string) {
	s.t.Helper()
	tok := by.token(control.TokenRequest{For: name, Roles: []string{"head"}})
	who := testkit.Value(s.join(tok, name, pki.KeepIdentity))(s.t)
	if !who.Is(cluster.RoleHead) {
		s.t.Errorf("it joined as %+v", who)
	}
	s.start()
	s.votes(by, name)
}

// votes waits until the head by says that another one votes.
func (s *site) votes(by *site, name string) {
	s.t.Helper()
	testkit.Eventually(s.t, name+" votes", func() bool {
		st, err := s.client().Status(s.t.Context())
		return err == nil && st.Coord.OK && by.voter(name)
	})
}

// voter reports whether a head says that a head votes on the shared state.
func (s *site) voter(name string) bool {
	for _, m := range s.status().Coord.Members {
		if m.Server == name {
			return m.Votes
		}
	}
	return false
}

func TestThreeHeadsAreOneCluster(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	head.start() // alone at first
	head.capture("compute")
	heads := withHeads(t, head, "127.0.0.3", "127.0.0.4")
	head2, head3 := heads[0], heads[1]
	testkit.Must(t, head.apply())
	head2.joinAsHead(head, "head2")
	head3.joinAsHead(head2, "head3") // the second head certifies, too
	testkit.Eventually(t, "all have the version that was captured before they joined", func() bool {
		return len(head.server("head2").Observed.Versions) == 1 && len(head.server("head3").Observed.Versions) == 1
	})
	testkit.Must(t, head.stop())
	testkit.Eventually(t, "the others go on", func() bool { return head2.tag("compute@1", "later") == nil })
	is1 := head3.token(control.TokenRequest{Roles: []string{"image"}})
	if !strings.Contains(is1.URL, "127.0.0.4") {
		t.Errorf("a token of head3 is for %s", is1.URL)
	}
	head.start()
	testkit.Eventually(t, "the first one has what it missed", func() bool {
		_, err := head.client().Version(t.Context(), "compute@later")
		return err == nil
	})

	// head3 is lost for ever, and its machine replaced.
	testkit.Must(t, head3.stop(), os.RemoveAll(head3.data))
	testkit.Eventually(t, "head3 is removed", func() bool {
		_, err := head2.client().ChangeServer(t.Context(), "head3", control.ServerChange{Do: "remove"})
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	head3.joinAsHead(head, "head3")
	if n := len(head.status().Coord.Members); n != 3 {
		t.Errorf("there are %d members: %+v", n, head.status().Coord.Members)
	}
	removeLeader(t, map[string]*site{"head": head, "head2": head2, "head3": head3})
}

// removeLeader removes the head that leads, which no change of the leader may interrupt.
func removeLeader(t *testing.T, heads map[string]*site) {
	t.Helper()
	testkit.Eventually(t, "the leader is removed", func() bool {
		for _, m := range heads["head"].status().Coord.Members {
			if !m.Leads {
				continue
			}
			by := heads["head"]
			if m.Server == "head" {
				by = heads["head2"]
			}
			_, err := by.client().ChangeServer(t.Context(), m.Server, control.ServerChange{Do: "remove"})
			if err != nil && !strings.Contains(err.Error(), "came up seconds ago") {
				t.Fatalf("remove the leader %s: %v", m.Server, err)
			}
			return err == nil
		}
		return false
	})
}

// TestALostQuorumIsRecovered: with one of two heads nothing can be declared, nodes are served, and a person can let the
// one go on alone.
func TestALostQuorumIsRecovered(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	head2 := withHeads(t, head, "127.0.0.3")[0]
	head.start()
	head.capture("compute")
	head2.joinAsHead(head, "head2")
	testkit.Must(t, head.tag("compute@1", "before"), head2.stop())
	testkit.Eventually(t, "the head says that the quorum is lost", func() bool {
		p := head.problem("shared state")
		return strings.Contains(p.Text, "no quorum") && strings.Contains(p.Hint, "dim server recover")
	})
	if err := head.tag("compute@1", "without"); err == nil {
		t.Error("one of two heads takes a change")
	}
	if got := read(t, head.mount("127.0.0.11", "/nodes/n01"), "etc/motd"); got != "one\n" {
		t.Errorf("without a quorum n01 reads %q", got)
	}
	if _, err := Recover(head.data, func(control.Recovery) bool { return true }); err == nil {
		t.Error("a running head is recovered")
	}
	testkit.Must(t, head.stop())

	plan := testkit.Value(Recover(head.data, func(control.Recovery) bool { return false }))(t)
	if plan.Done || len(plan.Heads) != 1 || plan.Heads[0] != "head2" || plan.Revision == 0 {
		t.Errorf("the plan is %+v", plan)
	}
	if done := testkit.Value(Recover(head.data, func(control.Recovery) bool { return true }))(t); !done.Done {
		t.Errorf("it did %+v", done)
	}
	if _, err := Recover(head.data, func(control.Recovery) bool { return true }); err == nil {
		t.Error("there is nothing left to recover, and it is no error")
	}
	head.start()
	testkit.Eventually(t, "it takes changes again", func() bool { return head.tag("compute@1", "after") == nil })
	v := testkit.Value(head.client().Version(t.Context(), "compute@1"))(t)
	if strings.Join(v.Tags, " ") != "after before" {
		t.Errorf("the tags are %q", v.Tags)
	}

	head2.start() // it was not dead, and is refused
	testkit.Eventually(t, "the other one is refused", func() bool {
		return strings.Contains(head.log.String(), "the identity of server head2 was revoked")
	})
	testkit.Eventually(t, "and says so", func() bool {
		return slices.ContainsFunc(head2.status().Problems, func(p control.Problem) bool {
			return strings.Contains(p.Text, "head head goes on without this one, whose identity ended at") &&
				!strings.Contains(p.Hint, "dim server recover") &&
				strings.Contains(p.Hint, "on head dim token --for head2 --roles head")
		})
	})
	testkit.Must(t, head2.stop())
	tok := head.token(control.TokenRequest{For: "head2", Roles: []string{"head"}})
	testkit.Value(head2.join(tok, "head2", pki.ReplaceIdentity))(t)
	head2.start()
	head2.votes(head, "head2")
}

// refuses returns a check that a head refuses changes, because the first head goes on without it.
func (s *site) refuses() func() bool {
	return func() bool {
		e, ok := errors.AsType[*control.Error](s.tag("compute@1", "refused"))
		return ok && e.Code == control.Unavailable && strings.Contains(e.Hint, "dim server recover") &&
			strings.Contains(e.Message, "head head goes on without this one, whose identity ended at")
	}
}

// TestAnImageServerTellsHeadsThatAnotherOneGoesOn: the heads never reach the one that goes on without them, and an
// image server has followed it.
func TestAnImageServerTellsHeadsThatAnotherOneGoesOn(t *testing.T) {
	t.Parallel()
	head, is1 := newPair(t)
	heads := withHeads(t, head, "127.0.0.4", "127.0.0.5")
	head2, head3 := heads[0], heads[1]
	testkit.Must(t, head.apply())
	head2.joinAsHead(head, "head2")
	head3.joinAsHead(head, "head3")
	testkit.Must(t, head2.stop(), head3.stop(), head.stop())
	testkit.Value(Recover(head.data, func(control.Recovery) bool { return true }))(t)
	head.start()
	testkit.Eventually(t, "is1 follows the head that goes on", func() bool {
		return len(is1.declared().Revoked) == 2
	})
	testkit.Must(t, head.stop())
	head2.start()
	head3.start()
	testkit.Eventually(t, "head2 refuses changes", head2.refuses())
	testkit.Eventually(t, "head3 refuses changes", head3.refuses())

	testkit.Must(t, head3.stop(), head2.stop())
	testkit.Value(Recover(head2.data, func(control.Recovery) bool { return true }))(t)
	head2.start()
	testkit.Eventually(t, "head2 can go on instead", func() bool { return head2.tag("compute@1", "later") == nil })
}

// TestHeadsThatAnotherOneGoesOnWithoutTakeNoChanges: dim server recover was run on a head that was only cut off from
// two others, which have a quorum.
func TestHeadsThatAnotherOneGoesOnWithoutTakeNoChanges(t *testing.T) {
	t.Parallel()
	head := newSite(t, "127.0.0.2")
	heads := withHeads(t, head, "127.0.0.3", "127.0.0.4")
	head2, head3 := heads[0], heads[1]
	head.start()
	head.capture("compute")
	head2.joinAsHead(head, "head2")
	head3.joinAsHead(head, "head3")
	testkit.Must(t, head.stop())
	testkit.Value(Recover(head.data, func(control.Recovery) bool { return true }))(t)
	testkit.Eventually(t, "the others take changes while they cannot know", func() bool {
		return head2.tag("compute@1", "lost") == nil
	})
	head.start()
	testkit.Eventually(t, "head2 refuses changes", head2.refuses())
	testkit.Eventually(t, "head3 refuses changes", head3.refuses())
	testkit.Must(t, head.tag("compute@1", "counts"), head.stop(), head2.stop(), head3.stop())
	head2.start() // without the one that could tell
	head3.start()
	testkit.Eventually(t, "head2 knows it after a restart", head2.refuses())
	testkit.Eventually(t, "head3 knows it after a restart", head3.refuses())

	testkit.Must(t, head3.stop(), head2.stop())
	testkit.Value(Recover(head2.data, func(control.Recovery) bool { return true }))(t)
	head2.start()
	testkit.Eventually(t, "it can go on instead", func() bool { return head2.tag("compute@1", "later") == nil })
	tok := head2.token(control.TokenRequest{For: "head3", Roles: []string{"head"}})
	testkit.Value(head3.join(tok, "head3", pki.ReplaceIdentity))(t)
	head3.start()
	head3.votes(head2, "head3")
	testkit.Eventually(t, "a head that has joined again takes changes", func() bool {
		return head3.tag("compute@1", "joined") == nil
	})
}
