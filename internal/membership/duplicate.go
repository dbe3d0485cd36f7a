package membership

import (
	"fmt"
	"time"

	"dim/internal/peer"
	"dim/internal/problems"
)

// duplicateSilence is how long after its last call a duplicate is no problem any more.
const duplicateSilence = 2 * time.Minute

// duplicate is a machine with a valid certificate of a server for which the shared state has another machine. There is
// one after the shared state was put back from a copy that is older than a join in place of another machine.
type duplicate struct {
	id          string
	first, last time.Time // calls
}

func (m *Membership) noteDuplicate(id peer.Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	r, known := m.duplicates[id.Name]
	if !known || r.id != id.ID || now.Sub(r.last) > duplicateSilence {
		r = duplicate{id: id.ID, first: now}
	}
	r.last = now
	m.duplicates[id.Name] = r
}

// duplicateProblems lists the servers as which another machine calls.
func (m *Membership) duplicateProblems() (list []problems.Problem) {
	now := m.Follow.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, r := range m.duplicates {
		listed, ok := now.State.Servers[string(name)]
		if !ok || listed.ID == r.id || time.Since(r.last) > duplicateSilence {
			delete(m.duplicates, name)
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
