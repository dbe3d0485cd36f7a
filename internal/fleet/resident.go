package fleet

import (
	"encoding/json"
	"strings"
	"time"
)

const (
	// maxNames bounds a list of names in a report, which has thousands of nodes.
	maxNames = 20
	// maxName bounds each of them, in bytes.
	maxName = 100
)

// Resident is what the resident process of a node reported last.
type Resident struct {
	State    string    `json:"state"`    // of control.Push
	Reported time.Time `json:"reported"` // by the clock of the node's server
	Memory   int       `json:"memory_kb"`
	Restart  Names     `json:"restart_units"`     // what has to be restarted so that nothing uses replaced files
	Omitted  int       `json:"omitted,omitempty"` // number of things for which a report had no room
	// UnitsRead is "yes", "no" or "", as in control.Push.
	UnitsRead string `json:"units_read,omitempty"`
}

// Names is a list of names, one a line: a Node with it can be compared with ==. In JSON it is an array.
type Names string

// JoinNames returns the names for which a report has room, and the number of the others.
func JoinNames(list []string) (names Names, omitted int) {
	var room []string
	for _, name := range list {
		if len(room) < maxNames && len(name) <= maxName && name != "" && !strings.Contains(name, "\n") {
			room = append(room, name)
		}
	}
	return Names(strings.Join(room, "\n")), len(list) - len(room)
}

// List returns the names.
func (n Names) List() []string {
	if n == "" {
		return []string{}
	}
	return strings.Split(string(n), "\n")
}

// MarshalJSON implements json.Marshaler.
func (n Names) MarshalJSON() ([]byte, error) { return json.Marshal(n.List()) }

// UnmarshalJSON implements json.Unmarshaler.
func (n *Names) UnmarshalJSON(text []byte) error {
	list, err := decodeList[string](text, maxNames)
	if err != nil {
		return err
	}
	for i := range list {
		list[i] = plain(list[i])
	}
	*n, _ = JoinNames(list)
	return nil
}

// check makes r say something that can be true, in texts that can be shown.
func (r *Resident) check() {
	r.State, r.UnitsRead = plain(r.State), plain(r.UnitsRead)
	r.Memory, r.Omitted = max(r.Memory, 0), max(r.Omitted, 0)
}
