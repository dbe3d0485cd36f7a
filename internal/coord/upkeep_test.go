package coord

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"dim/internal/testkit"
)

func TestADatabaseThatIsFullGetsRoomAgain(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir(), quota: 8 << 20}
	c := testkit.Value(Open(t.Context(), o))(t)
	defer func() { c.Close() }()
	large := Description{Files: []File{{Name: "cluster.xml", Data: bytes.Repeat([]byte("x"), 500_000)}}}
	fill := func() (err error) {
		for range 100 {
			if _, err = c.PutDescription(t.Context(), large, -1); err != nil {
				break
			}
		}
		return err
	}
	err := fill()
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "database is full") {
		t.Fatalf("after 100 descriptions the error is %v", err)
	}
	if err := c.Check(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("a check says %v", err)
	}
	testkit.Must(t, c.upkeep(t.Context()), c.Check(t.Context()))
	testkit.Value(c.PutDescription(t.Context(), large, -1))(t)
	if s := testkit.Value(c.Snapshot(t.Context()))(t); len(s.Description.Files) != 1 {
		t.Errorf("the state is %+v", s)
	}
	if got, _ := c.member.Size(); got > 4<<20 {
		t.Errorf("the database has %d bytes", got)
	}

	if err := fill(); err == nil {
		t.Fatal("it is not full again")
	}
	testkit.Must(t, c.Close())
	c = testkit.Value(Open(t.Context(), o))(t) // a restart makes room, too
	testkit.Value(c.PutDescription(t.Context(), large, -1))(t)
}
