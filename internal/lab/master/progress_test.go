package master

import (
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// testdata/mmdebstrap.log is the output of mmdebstrap 1.3.5 --verbose for a master, without most of the packages.
func TestProgressIsFoundInTheOutputOfMmdebstrap(t *testing.T) {
	log, err := os.Open("testdata/mmdebstrap.log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var got []Progress
	w := &progressWriter{report: func(p Progress) { got = append(got, p) }}
	if _, err := io.Copy(w, iotest.HalfReader(log)); err != nil {
		t.Fatal(err)
	}
	const (
		download  = "downloading packages"
		essential = "installing essential packages"
		remaining = "installing remaining packages inside the chroot"
	)
	want := []Progress{
		{Step: "finding correct signed-by value"},
		{Step: "running apt-get update"},
		{Step: "downloading packages with apt"},
		{download, 1, 3},
		{download, 2, 3},
		{download, 3, 3},
		{Step: "extracting archives"},
		{Step: essential},
		{essential, 0, 3},
		{essential, 1, 3},
		{essential, 1, 3},
		{essential, 2, 3},
		{essential, 2, 3},
		{essential, 3, 3},
		{Step: remaining},
		{download, 1, 3},
		{download, 2, 3},
		{download, 3, 3},
		{remaining, 0, 3},
		{remaining, 1, 3},
		{remaining, 1, 3},
		{remaining, 2, 3},
		{remaining, 2, 3},
		{remaining, 3, 3},
		{Step: "processing triggers for systemd"},
		{Step: "processing triggers for initramfs-tools"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
