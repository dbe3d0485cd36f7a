package membership

import (
	"fmt"
	"time"

	"dim/internal/peer"
	"dim/internal/problems"
)

// rivalSilence is how long after its last call a rival is no problem any more.
const rivalSilence = 2 * time.Minute

// rival is a machine with a valid certificate of a server for which the shared state has another machine. That is so
// after the shared state was put back from a copy that is older than a join in place of another machine.
type rival struct {
	id          string
	first, last time.Time // calls
}

func (m *Membership) noteRival(id peer.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	r, known := m.rivals[id.Name]
	if !known || r.id != id.ID || now.Sub(r.last) > rivalSilence {
		r = rival{id: id.ID, first: now}
	}
	r.last = now
	m.rivals[id.Name] = r
}

// rivalProblems lists the servers as which another machine calls.
func (m *Membership) rivalProblems() (list []problems.Problem) {
	now := m.Follow.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, r := range m.rivals {
		listed, ok := now.State.Servers[string(name)]
		if !ok || listed.ID == r.id || time.Since(r.last) > rivalSilence {
			delete(m.rivals, name)
			continue
		}
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindServer, Name: string(name)}, Since: r.first,
			Text: fmt.Sprintf("two machines have joined as %s: the one of %s counts, and the other one is refused",
				name, listed.Joined.Local().Format(time.DateTime)),
			Hint: fmt.Sprintf("if this head was restored from a backup, the other one has joined after it: "+
				"dim server rm %s ends the identity of the machine that counts, and the other one is let in; "+
				"else switch the other one off", name),
		})
	}
	return list
}
