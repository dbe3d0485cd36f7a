package kmod

import "testing"

func TestTheBetterKernelIsChosen(t *testing.T) {
	for _, tt := range []struct {
		worse, better string
		doubtful      bool
	}{
		{"3.10.0-1160.el7.x86_64", "3.10.0-1160.119.1.el7.x86_64", false},
		{"4.18.0-305.el8.x86_64", "4.18.0-305.19.1.el8_4.x86_64", false},
		{"2.6.32-754.el6.x86_64", "2.6.32-754.35.1.el6.x86_64", false},
		{"5.14.0-70.el9.x86_64", "5.14.0-70.13.1.el9_0.x86_64", false},
		{"6.6.0-rc7", "6.6.0", false},
		{"6.6.0.8", "6.6.0-9", true}, // for dpkg "." is newer than "-"
		{"6.6.0-rc7-amd64", "6.6.0-rc10-amd64", false},
		{"6.6.0-0.rc7.57.fc40.x86_64", "6.6.0-57.fc40.x86_64", false},
		{"6.1.0-9-amd64", "6.1.0-57-amd64", false},
		{"6.1.0-57-cloud-amd64", "6.1.0-57-amd64", true},
		{"6.1.0-58-cloud-amd64", "6.1.0-57-amd64", true},
		{"6.1.0-57-rt-amd64", "6.1.0-57-amd64", true},
		{"5.15.0-100-lowlatency", "5.15.0-100-generic", true},
		{"5.14.0-503.el9.aarch64+64k", "5.14.0-503.el9.aarch64", true},
		{"5.14.0-503.el9.x86_64+rt", "5.14.0-503.el9.x86_64", true},
		{"4.18.0-305.rt7.72.el8.x86_64", "4.18.0-305.el8.x86_64", true},
		{"6.4.0-150600.23.7-azure", "6.4.0-150600.23.7-default", true},
		{"6.4.0-150600.23-default", "6.4.0-150600.23.7-default", false},
		{"6.1.0-57-amd64-dbg", "6.1.0-9-cloud-amd64", false},
		{"0-rescue-0123456789abcdef", "3.10.0-1160.el7.x86_64", false},
		{"5.14.0-503.el9.x86_64+debug", "5.14.0-70.el9.x86_64", false},
		{"4.9.0~rc1", "4.9.0", false},
	} {
		if c, back := CompareRelease(tt.better, tt.worse), CompareRelease(tt.worse, tt.better); c <= 0 || back >= 0 {
			t.Errorf("%s is not better than %s: %d, %d", tt.better, tt.worse, c, back)
		}
		if got := DoubtfulRelease(tt.better, tt.worse); got != tt.doubtful {
			t.Errorf("%s before %s is doubtful: %v", tt.better, tt.worse, got)
		}
	}
}

func FuzzCompareRelease(f *testing.F) {
	f.Add("6.6.0-rc7", "6.6.0", "6.1.0-57-cloud-amd64")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc, ac := CompareRelease(a, b), CompareRelease(b, c), CompareRelease(a, c)
		if CompareRelease(b, a) != -ab || (a == b) != (ab == 0) {
			t.Errorf("%q, %q: %d and %d", a, b, ab, CompareRelease(b, a))
		}
		if ab <= 0 && bc <= 0 && ac > 0 {
			t.Errorf("%q <= %q <= %q, but the first is larger than the last", a, b, c)
		}
	})
}
