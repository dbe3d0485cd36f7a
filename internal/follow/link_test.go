package follow

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/coord/member"
	"dim/internal/problems"
	"dim/internal/rollout"
	"dim/internal/testkit"
)

func TestAChangeWaitsForTheFirstSearch(t *testing.T) {
	f := loaded(t, coord.State{})
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Change(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("before the first search: %v", err)
	}
	select {
	case <-f.Searched():
		t.Error("the search is over before it began")
	default:
	}
	go f.setHealth(coord.ErrUnavailable)
	_, err := f.Change(t.Context())
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Unavailable || e.Hint == "" {
		t.Errorf("after it: %v", err)
	}
}

func TestTheHintFitsTheReason(t *testing.T) {
	const room, damaged = "needs 160 MB free", "is damaged: mv "
	for _, tt := range []struct {
		name string
		err  error
		edit func(*Follower)
		want string // "" is neither room nor damage
	}{
		{name: "it does not answer", err: coord.ErrUnavailable},
		{name: "etcd has ended", err: fmt.Errorf("%w: %w", coord.ErrUnavailable, member.ErrEnded), want: damaged},
		{name: "its directory may not be read", err: fs.ErrPermission, want: damaged},
		{name: "its directory is a file", err: unix.ENOTDIR, want: damaged},
		{name: "a newer program wrote it", err: fmt.Errorf("%w: %w", coord.ErrNewerFormat, member.ErrEnded)},
		{
			name: "the disk is full", err: member.ErrEnded, want: room,
			edit: func(f *Follower) { f.CoordDir = "/proc/self/coord" }, // a disk without room
		},
		{
			name: "an external etcd has ended", err: member.ErrEnded,
			edit: func(f *Follower) { f.Etcd.Endpoints = []string{"http://127.0.0.1:1"} },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := loaded(t, coord.State{})
			if tt.edit != nil {
				tt.edit(f)
			}
			got := f.hint(tt.err)
			if !strings.HasPrefix(got, "nodes are served what was declared last") {
				t.Errorf("hint: %s", got)
			}
			for _, part := range []string{room, damaged} {
				if strings.Contains(got, part) != (part == tt.want) {
					t.Errorf("hint: %s", got)
				}
			}
		})
	}
}

func TestProblemsOfTheDescriptionAndTheSharedState(t *testing.T) {
	f := loaded(t, coord.State{Store: "a", Revision: 1, Images: images(1)})
	f.setHealth(errors.New("no answer"))
	testkit.Must(t, f.adopt(t.Context(), coord.State{
		Store: "a", Revision: 2, Images: images(1), Description: describe(t, foreign()),
	}))
	list := f.Problems(t.Context())
	if len(list) != 2 || list[0].About != problems.Of(problems.KindDescription) ||
		list[1].About != problems.Of(problems.KindSharedState) || list[1].Text != "no answer" {
		t.Errorf("problems: %+v", list)
	}
	if h := f.Health(t.Context()); h.OK || h.Error != "no answer" || h.Revision != 2 {
		t.Errorf("health: %+v", h)
	}
}

func TestTheSharedStateIsBadSinceItChanged(t *testing.T) {
	f := loaded(t, coord.State{})
	f.setHealth(errors.New("one"))
	first := f.changed
	f.setHealth(errors.New("two"))
	if f.changed != first {
		t.Error("another reason is taken for a change")
	}
	if f.setHealth(nil); !f.changed.After(first) {
		t.Error("it is available, and that is no change")
	}
}

func TestErrorsGetTheCodesOfTheAPI(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code control.Code
	}{
		{fmt.Errorf("put: %w", coord.ErrConflict), control.Conflict},
		{coord.ErrUnavailable, control.Unavailable},
		{coord.ErrNotFound, control.NotFound},
		{rollout.ErrConflict, control.Conflict},
		{rollout.ErrState, control.Conflict},
		{context.Canceled, ""},
		{nil, ""},
	} {
		err := APIError(tt.err)
		var code control.Code
		if e, ok := errors.AsType[*control.Error](err); ok {
			code = e.Code
		} else if !errors.Is(err, tt.err) {
			t.Errorf("%v became %v", tt.err, err)
		}
		if code != tt.code {
			t.Errorf("%v has the code %q, want %q", tt.err, code, tt.code)
		}
	}
}

func TestWhatBringsAnEtcdBack(t *testing.T) {
	const enough = spaceNeeded
	ended := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later := ended.Add(restartAfter + time.Second)
	for _, tt := range []struct {
		name  string
		e     ending
		now   time.Time
		dir   uint64
		space uint64
		want  remedy
	}{
		{"nothing has changed", ending{dir: 1, ran: true}, ended, 1, enough, none},
		{"its directory was replaced", ending{dir: 1, ran: true}, ended, 2, enough, reopen},
		{"its directory was moved away", ending{dir: 1}, ended, 0, enough, reopen},
		{"its directory was replaced, and the disk is full", ending{dir: 1, full: true}, ended, 2, 0, reopen},
		{"the disk is still full", ending{dir: 1, full: true, ran: true}, later, 1, enough - 1, none},
		{"the disk has room again", ending{dir: 1, full: true, ran: true}, ended, 1, enough, restart},
		{"it never ran on the full disk", ending{dir: 1, full: true}, ended, 1, enough, restart},
		{"it ended for another reason long ago", ending{dir: 1, ran: true}, later, 1, enough, restart},
		{"it is damaged", ending{dir: 1}, later, 1, enough, none},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.e.at = ended
			if got := tt.e.remedy(tt.now, tt.dir, tt.space); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestADirectoryThatWasReplacedHasAnotherInode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "coord")
	if got := inode(dir); got != 0 {
		t.Errorf("one that does not exist: %d", got)
	}
	testkit.Must(t, os.Mkdir(dir, 0o700))
	first := inode(dir)
	testkit.Must(t, os.Rename(dir, dir+".damaged"), os.Mkdir(dir, 0o700))
	if second := inode(dir); first == 0 || second == 0 || second == first {
		t.Errorf("%d, then %d", first, second)
	}
}
