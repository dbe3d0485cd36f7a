package kmod

import (
	"cmp"
	"slices"
	"strings"
)

// CompareRelease compares the releases of kernels; the larger one is the better choice for an image that has both. A
// plain kernel is better than one of a special flavour, which often lacks drivers, and both are better than one for
// debugging or rescue. Then the newer one is better, as rpm compares versions.
func CompareRelease(a, b string) int {
	x, y := parseRelease(a), parseRelease(b)
	return cmp.Or(cmp.Compare(y.class, x.class), compareVersions(x.version, y.version), strings.Compare(a, b))
}

// DoubtfulRelease reports whether other may be the kernel that is meant, although chosen is the better one by
// CompareRelease: they have different flavours, or other is newer by the rules of rpm or, if neither is of a
// distribution with rpm, of dpkg. A kernel for debugging or rescue is never meant.
func DoubtfulRelease(chosen, other string) bool {
	x, y := parseRelease(chosen), parseRelease(other)
	if y.class == debugClass {
		return x.class == debugClass && chosen != other
	}
	return x.flavour != y.flavour || compareVersions(x.version, y.version) < 0 ||
		!ofRpm(chosen) && !ofRpm(other) && compareAsDpkg(x.version, y.version) < 0
}

// ofRpm reports whether a release looks like one of a distribution with rpm, which ends with the architecture after a
// dot. SUSE's have the same order in both rules.
func ofRpm(release string) bool {
	return slices.ContainsFunc([]string{".x86_64", ".aarch64", ".ppc64le"}, func(arch string) bool {
		return strings.Contains(release, arch)
	})
}

// class is what a kernel is for.
type class int

const (
	plainClass class = iota
	flavourClass
	debugClass
)

// release is a parsed release: "6.1.0-57-cloud-amd64" has the version "6.1.0-57-amd64" and the flavour "cloud".
type release struct {
	version, flavour string
	class            class
}

// The parts of releases that name a flavour, of Debian, Ubuntu, SUSE, and Red Hat and its derivatives. Others end with
// a number, such as rt7.
var (
	flavours = []string{
		"cloud", "rt", "realtime", "lowlatency", "preempt", "16k", "64k", "64kb", "azure", "aws", "gcp", "gke",
		"oracle", "ibm", "kvm", "kvmsmall", "virtual", "virt", "vanilla", "pae", "xen", "uek", "lpae", "raspi",
		"rpi", "zfcpdump",
	}
	debugWords = []string{"debug", "dbg", "rescue", "kdump", "trace"}
)

func parseRelease(s string) (r release) {
	isSeparator := func(c rune) bool { return strings.ContainsRune("-.+_", c) }
	for s != "" {
		end := strings.IndexFunc(s, isSeparator)
		if end < 0 {
			end = len(s)
		}
		part := s[:end]
		word := strings.ToLower(strings.TrimRight(part, "0123456789"))
		switch {
		case slices.Contains(debugWords, word):
			r.class = debugClass
		case slices.Contains(flavours, strings.ToLower(part)), word == "rt":
			r.flavour += word + " "
			r.class = max(r.class, flavourClass)
		case word == "rc" && word != strings.ToLower(part):
			r.version = strings.TrimRight(r.version, "-.+_") + "~" + part
		default:
			r.version += part
		}
		if s = s[end:]; s != "" {
			r.version += s[:1]
			s = s[1:]
		}
	}
	return r
}

// compareVersions compares versions as rpm does (rpmvercmp): runs of digits and runs of letters, a number is newer than
// letters, all else only separates, and "~" comes before everything, even the end.
func compareVersions(a, b string) int {
	for {
		a, b = strings.TrimLeftFunc(a, separates), strings.TrimLeftFunc(b, separates)
		switch early := strings.HasPrefix(a, "~"); {
		case early && strings.HasPrefix(b, "~"):
			a, b = a[1:], b[1:]
			continue
		case early:
			return -1
		case strings.HasPrefix(b, "~"):
			return 1
		case a == "" || b == "":
			return cmp.Compare(len(a), len(b))
		}
		digits := isDigit(rune(a[0]))
		if digits != isDigit(rune(b[0])) {
			if digits {
				return 1
			}
			return -1
		}
		var x, y string
		x, a = cutRun(a, digits)
		y, b = cutRun(b, digits)
		if digits {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Compare(len(x), len(y)); c != 0 {
				return c
			}
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
}

func isDigit(c rune) bool  { return c >= '0' && c <= '9' }
func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func separates(c rune) bool { return !isDigit(c) && !isLetter(c) && c != '~' }

// cutRun cuts the digits, or the letters, at the start of s.
func cutRun(s string, digits bool) (run, rest string) {
	end := strings.IndexFunc(s, func(c rune) bool { return digits != isDigit(c) || !digits && !isLetter(c) })
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

// compareAsDpkg compares versions as dpkg does (Debian Policy 5.6.12).
func compareAsDpkg(a, b string) int {
	cut := func(s string) (text, number, rest string) {
		end := strings.IndexFunc(s, isDigit)
		if end < 0 {
			return s, "", ""
		}
		number, rest = cutRun(s[end:], true)
		return s[:end], strings.TrimLeft(number, "0"), rest
	}
	for a != "" || b != "" {
		var textA, textB, numberA, numberB string
		textA, numberA, a = cut(a)
		textB, numberB, b = cut(b)
		for i := range max(len(textA), len(textB)) {
			if c := cmp.Compare(weight(textA, i), weight(textB, i)); c != 0 {
				return c
			}
		}
		if c := cmp.Or(cmp.Compare(len(numberA), len(numberB)), cmp.Compare(numberA, numberB)); c != 0 {
			return c
		}
	}
	return 0
}

// weight returns a number in the order of dpkg: `~`, the end, letters, all else.
func weight(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case isLetter(rune(s[i])):
		return int(s[i])
	}
	return int(s[i]) + 256
}
