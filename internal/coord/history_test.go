package coord

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
	"dim/internal/testkit"
)

// someDescription is a description with a text.
func someDescription(text string) Description {
	return Description{
		Files: []File{{"c.xml", []byte(text)}}, Digest: image.Sum([]byte(text)),
		By: "ada", Message: text, Summary: "summary of " + text,
	}
}

func TestReplacedDescriptionsAreKept(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	first := testkit.Value(c.PutDescription(t.Context(), someDescription("one"), 0))(t)
	second := testkit.Value(c.PutDescription(t.Context(), someDescription("two"), first))(t)
	testkit.Must(t, c.Close())
	c = open(t, dir)
	list := testkit.Value(c.History(t.Context()))(t)
	want := []Description{someDescription("two"), someDescription("one")}
	for i, revision := range []int64{second, first} {
		want[i].Revision, want[i].Files = revision, nil
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("history:\n%s", diff)
	}
	got := testkit.Value(c.DescriptionAt(t.Context(), first))(t)
	if diff := cmp.Diff(someDescription("one").Files, got.Files); diff != "" || got.By != "ada" {
		t.Errorf("the first one:\n%s", diff)
	}
	for _, revision := range []int64{second, first - 1} { // the applied one is not in the history
		if _, err := c.DescriptionAt(t.Context(), revision); !errors.Is(err, ErrNotFound) {
			t.Errorf("revision %d: %v", revision, err)
		}
	}
}

func TestTheHistoryIsBoundedAndNotPartOfTheState(t *testing.T) {
	c := open(t, t.TempDir())
	var last int64
	for i := range keptDescriptions + 3 {
		last = testkit.Value(c.PutDescription(t.Context(), someDescription(fmt.Sprint(i)), last))(t)
	}
	list := testkit.Value(c.History(t.Context()))(t)
	if len(list) != keptDescriptions+1 || list[0].Message != "102" || list[keptDescriptions].Message != "2" {
		t.Errorf("%d are kept, from %s to %s", len(list), list[0].Message, list[len(list)-1].Message)
	}
	testkit.Value(c.DescriptionAt(t.Context(), list[keptDescriptions].Revision))(t)
	testkit.Value(c.Snapshot(t.Context()))(t)
	for key := range c.mirror.keys {
		if bytes.HasPrefix([]byte(key), []byte(historyKey)) {
			t.Errorf("the state has %s", key)
		}
	}
}

func TestALargeDescriptionIsListedWithoutItsFiles(t *testing.T) {
	c := open(t, t.TempDir())
	large := someDescription("large")
	large.Files[0].Data = make([]byte, 2*maxKept)
	rand.Read(large.Files[0].Data)
	revision := testkit.Value(c.PutDescription(t.Context(), large, 0))(t)
	testkit.Value(c.PutDescription(t.Context(), someDescription("small"), revision))(t)
	if list := testkit.Value(c.History(t.Context()))(t); len(list) != 2 || list[1].Message != "large" {
		t.Errorf("history: %+v", list)
	}
	if _, err := c.DescriptionAt(t.Context(), revision); !errors.Is(err, ErrNotFound) {
		t.Errorf("its files: %v", err)
	}
}

func TestOneMoreNodeOf10000IsThreeKeys(t *testing.T) {
	c := open(t, t.TempDir())
	var inventory []byte
	for i := range 10_000 {
		inventory = fmt.Appendf(inventory, "n%05d,eth0,52:54:00:00:%02x:%02x\n", i, i>>8, i&255)
	}
	description := func(inventory []byte) Description {
		d := someDescription("<cluster/>")
		d.Files, d.Digest = append(d.Files, File{"macs.csv", inventory}), image.Sum(inventory)
		return d
	}
	apply := func(inventory []byte, last int64) int64 {
		none := func(State) (Change, error) { return Change{}, nil }
		return testkit.Value(c.Apply(t.Context(), description(inventory), last, none))(t)
	}
	first := apply(inventory, 0)
	second := apply(append(inventory, "n10000,eth0,52:54:00:01:00:00\n"...), first)
	r, err := c.read(t.Context(), c.prefix, clientv3.WithPrefix(), clientv3.WithMinModRev(first+1))
	testkit.Must(t, err)
	bytes := 0
	for _, kv := range r.Kvs {
		bytes += len(kv.Value)
	}
	if second != first+1 || len(r.Kvs) != 3 || bytes > 2*len(inventory) {
		t.Errorf("revisions %d and %d, %d keys with %d bytes; the inventory has %d", first, second, len(r.Kvs), bytes,
			len(inventory))
	}
}

func TestADescriptionAndWhatIsDecidedWithItArePutTogether(t *testing.T) {
	c := open(t, t.TempDir())
	refuse := errors.New("refused")
	_, err := c.Apply(t.Context(), someDescription("one"), -1, func(State) (Change, error) { return Change{}, refuse })
	if s := testkit.Value(c.Snapshot(t.Context()))(t); err != refuse || s.Description != nil {
		t.Errorf("refused: %v, %+v", err, s.Description)
	}
	calls := 0
	_, err = c.Apply(t.Context(), someDescription("one"), -1, func(s State) (Change, error) {
		if calls++; calls == 1 { // somebody else decides meanwhile
			testkit.Must(t, c.Decide(t.Context(), func(State) (Change, error) {
				return Change{Layers: Holders{"n02": "b"}}, nil
			}))
		}
		return Change{Layers: Holders{"n01": "a"}}, nil
	})
	testkit.Must(t, err)
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	if diff := cmp.Diff(Holders{"n01": "a", "n02": "b"}, s.Layers); diff != "" || calls != 2 || s.Description == nil {
		t.Errorf("after %d calls: %+v\n%s", calls, s.Description, diff)
	}
}

func FuzzUnpacked(f *testing.F) {
	f.Add(testkit.Value(packed([]File{{"c.xml", []byte("<cluster/>")}}))(f))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = unpacked(b) })
}
