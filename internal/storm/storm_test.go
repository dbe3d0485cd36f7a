package storm

import (
	"fmt"
	"testing"
	"time"

	"dim/internal/control"
)

func TestNodesAreDividedAsTheRealOnesAre(t *testing.T) {
	for _, tt := range []struct {
		n       int
		weights []int
		want    string
	}{
		{64, []int{512}, "[64]"},
		{64, []int{0}, "[64]"},
		{100, []int{64, 64}, "[50 50]"},
		{100, []int{300, 100}, "[75 25]"},
		{3, []int{1000, 1, 1}, "[1 1 1]"},
		{10, []int{1000, 1, 1}, "[8 1 1]"},
		{7, []int{64, 64, 64}, "[2 3 2]"},
		{2560, []int{64, 64, 0}, "[1270 1270 20]"},
	} {
		got := divide(tt.n, tt.weights)
		sum := 0
		for _, n := range got {
			sum += n
		}
		if sum != tt.n || fmt.Sprint(got) != tt.want {
			t.Errorf("%d by %v: %v, want %s", tt.n, tt.weights, got, tt.want)
		}
	}
}

func TestQuantilesOfFewBoots(t *testing.T) {
	boots := []time.Duration{3 * time.Second, time.Second, 2 * time.Second}
	for q, want := range map[float64]float64{0.5: 2, 0.99: 3, 0.01: 1} {
		if got := quantile(boots, q); got != want {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of none: %v", got)
	}
}

func TestAnErrorOfAServerNamesItOnce(t *testing.T) {
	for _, tt := range []struct{ server, message, want string }{
		{"is1", "it has no version", "is1: it has no version"},
		{"is1", "server is1 does not answer: no route", "server is1 does not answer: no route"},
		{"", "it has no version", "it has no version"},
	} {
		if got := about(tt.server, control.Errorf(control.Unavailable, "%s", tt.message)); got.Error() != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
