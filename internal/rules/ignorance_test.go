package rules

import (
	"fmt"
	"go/types"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPackagesDoNotImportWhatTheyMustNotKnow(t *testing.T) {
	enforce(t, "ignorance", checkIgnorance)
}

// meanings are the packages that an item of a statement of the form "it must not know A, B or C" excludes. An
// item that is not here excludes nothing.
var meanings = []struct {
	item     *regexp.Regexp
	packages []string
}{
	{regexp.MustCompile(`^any other package of this project$`), []string{"internal", "cmd", "e2e", "bench"}},
	{regexp.MustCompile(`^(anything of )?images$|^what (an image|a version) is$`),
		[]string{"internal/image", "internal/store"}},
	{regexp.MustCompile(`^(how )?images are stored$|^how a version is stored$|^where versions are stored$|` +
		`^where trees and blobs are$|` +
		`^how anything is stored$|^what a store$`), []string{"internal/store"}},
	{regexp.MustCompile(`^clusters$|^(the )?cluster('s)? description$|^groups$|^what a description means$`),
		[]string{"internal/cluster"}},
	{regexp.MustCompile(`^nodes$|^(what )?a node is$|^what nodes see$`),
		[]string{"internal/cluster", "internal/coord", "internal/replica"}},
	{regexp.MustCompile(`^rollouts$`), []string{"internal/rollout"}},
	{regexp.MustCompile(`^replicas$|^how replicas are made$`), []string{"internal/replica"}},
	{regexp.MustCompile(`^layers$|^handles$`), []string{"internal/replica"}},
	{regexp.MustCompile(`^(any )?protocols?$|^how files are served$|^served$`), []string{
		"internal/nfs", "internal/oncrpc", "internal/dhcp", "internal/tftp", "internal/fuse", "internal/ra",
	}},
	{regexp.MustCompile(`^booted$|^boot files$|^what boots$`),
		[]string{"internal/boot", "internal/initramfs", "internal/nodeinit"}},
	{regexp.MustCompile(`^how an initramfs is made$`), []string{"internal/initramfs"}},
	{regexp.MustCompile(`^the formats of DHCP$`), []string{"internal/dhcp", "internal/tftp"}},
	{regexp.MustCompile(`^servers$`), []string{"internal/daemon"}},
}

// ignorances find the statements in a package comment. They end with a sentence or with a paragraph.
var ignorances = []*regexp.Regexp{
	regexp.MustCompile(`(?s)must not know (.*?)(?:\.\s|:|\n\n|$)`),
	regexp.MustCompile(`(?s)# What it must not know\n\n(.*?)(?:\.\s|:|\n\n|$)`),
}

var (
	spaces     = regexp.MustCompile(`\s+`)
	separators = regexp.MustCompile(`, (and |or |nor )?| and | or | nor `)
)

// excluded returns the packages that a package comment says the package must not know, each with the words that say so.
func excluded(comment string) map[string]string {
	all := map[string]string{}
	for _, statement := range ignorances {
		for _, m := range statement.FindAllStringSubmatch(comment, -1) {
			text := strings.TrimSuffix(strings.TrimSpace(spaces.ReplaceAllString(m[1], " ")), ".")
			for _, item := range separators.Split(text, -1) {
				for _, meaning := range meanings {
					if !meaning.item.MatchString(item) && !meaning.item.MatchString(lowerFirst(item)) {
						continue
					}
					for _, p := range meaning.packages {
						all[p] = item
					}
				}
			}
		}
	}
	return all
}

func lowerFirst(s string) string { return strings.ToLower(s[:min(1, len(s))]) + s[min(1, len(s)):] }

// checkIgnorance reports packages that import, also through others, what their comment says they must not know.
func checkIgnorance(p *tree) (problems []problem) {
	for _, pkg := range p.pkgs {
		for _, f := range pkg.files {
			if f.Doc == nil {
				continue
			}
			for other, word := range excluded(f.Doc.Text()) {
				if path := importPathTo(pkg.types, other); path != nil {
					problems = append(problems, problem{pkg.name, f.Doc.Pos(), fmt.Sprintf(
						"%s says that it must not know %q, and imports %s", pkg.name, word,
						strings.Join(path, ", which imports "))})
				}
			}
		}
	}
	return problems
}

// importPathTo returns the packages of ours on the way from p to the package named other or one below it, or
// nil if there is none.
func importPathTo(p *types.Package, other string) []string {
	for _, i := range p.Imports() {
		name, local := strings.CutPrefix(i.Path(), "dim/")
		if !local {
			continue
		}
		if below(name, []string{other}) && !below(strings.TrimPrefix(p.Path(), "dim/"), []string{other}) {
			return []string{name}
		}
		if path := importPathTo(i, other); path != nil {
			return slices.Insert(path, 0, name)
		}
	}
	return nil
}

// family are imports between packages of which one is below the other, or which are below the same one: all
// that there are, with reasons.
var family = map[[2]string]string{
	{"internal/boot/delivery", "internal/boot"}:              "what is decided is served",
	{"internal/boot/dhcpconf", "internal/boot"}:              "other servers decide alike",
	{"internal/capture", "internal/capture/archive"}:         "entries that come through ssh",
	{"internal/capture", "internal/capture/draft"}:           "trees in the making",
	{"internal/capture", "internal/capture/mounts"}:          "what is mounted is left out",
	{"internal/layers", "internal/layers/pkgread"}:           "packages that nodes have changed",
	{"internal/capture", "internal/capture/oci"}:             "an image from OCI layers",
	{"internal/capture", "internal/capture/remote"}:          "the other end of a capture through ssh",
	{"internal/capture", "internal/capture/unpack"}:          "an image from archives",
	{"internal/confine/readfs", "internal/confine"}:          "what such a process may read",
	{"internal/capture/unpack", "internal/capture/archive"}:  "what the reader reads",
	{"internal/capture/unpack", "internal/capture/draft"}:    "what it makes of it",
	{"internal/capture/archive", "internal/capture/draft"}:   "an archive becomes a tree",
	{"internal/capture/mounts", "internal/capture/draft"}:    "mount points are paths",
	{"internal/capture/remote", "internal/capture/archive"}:  "entries travel as an archive",
	{"internal/capture/remote", "internal/capture/draft"}:    "entries become a tree",
	{"internal/capture/remote", "internal/capture/mounts"}:   "what is mounted is not listed",
	{"internal/cluster", "internal/cluster/builtin"}:         "the names are part of the vocabulary",
	{"internal/cluster", "internal/cluster/inventory"}:       "inventories are lists of hardware addresses",
	{"internal/cluster", "internal/cluster/learned"}:         "learned addresses override stated ones",
	{"internal/cluster", "internal/cluster/nodeset"}:         "groups are node sets",
	{"internal/cluster/changes", "internal/cluster"}:         "descriptions are compared",
	{"internal/cluster/changes", "internal/cluster/nodeset"}: "names are folded",
	{"internal/cluster/export", "internal/cluster"}:          "a cluster is exported",
	{"internal/cluster/export", "internal/cluster/nodeset"}:  "names are folded",
	{"internal/cluster/summary", "internal/cluster"}:         "a summary describes a cluster",
	{"internal/cluster/summary", "internal/cluster/builtin"}: "it lists the built-in files that are on",
	{"internal/coord", "internal/coord/member"}:              "the embedded etcd is a member of a cluster",
	{"internal/control/client", "internal/control"}:          "the client speaks the API's words",
	{"internal/control/client", "internal/control/wire"}:     "the client decodes streams",
	{"internal/control/server", "internal/control"}:          "the server speaks the API's words",
	{"internal/control/server", "internal/control/wire"}:     "the server encodes streams",
	{"internal/control/wire", "internal/control"}:            "streams carry the API's words",
	{"internal/migrate", "internal/migrate/describe"}:        "what the readers read is described",
	{"internal/migrate", "internal/migrate/xcatvalue"}:       "tables of xCAT have expressions",
	{"internal/follow", "internal/follow/stream"}:            "an image server gets the state from a head",
	{"internal/daemon", "internal/daemon/sockets"}:           "what listens",
	{"internal/follow/followtest", "internal/follow"}:        "it opens a Follower",
	{"internal/lab", "internal/lab/netns"}:                   "machines run in networks",
	{"internal/image/fileid", "internal/image"}:              "entries have ids",
	{"internal/image/treediff", "internal/image"}:            "trees are compared",
	{"internal/masters", "internal/masters/inspect"}:         "versions are looked at",
	{"internal/replica", "internal/replica/commit"}:          "changes are made durable",
	{"internal/replica", "internal/replica/fds"}:             "open files",
	{"internal/replica", "internal/replica/lower"}:           "the version under a layer",
	{"internal/replica/commit", "internal/replica/fds"}:      "changes are made durable through open files",
	{"internal/vfs/dirfs", "internal/vfs"}:                   "a plain directory is a vfs.FS",
	{"internal/vfs/vfstest", "internal/vfs"}:                 "the battery calls a vfs.FS",
}

func TestImportsInAFamilyAreDeclared(t *testing.T) { enforce(t, "family", checkFamily) }

// checkFamily reports imports in a family that are not declared. A file of tests may import any of its family.
func checkFamily(p *tree) (problems []problem) {
	for _, pkg := range p.pkgs {
		from, height, _ := layerOf(pkg.name)
		if height == program {
			continue
		}
		seen := map[string]bool{}
		for _, f := range pkg.files {
			for _, spec := range f.Imports {
				to, local := strings.CutPrefix(importPath(spec), "dim/")
				if seen[to] {
					continue
				}
				seen[to] = true
				if local && (sameFamily(pkg.name, to) || from == owner(to)) && family[[2]string{pkg.name, to}] == "" {
					problems = append(problems,
						problem{pkg.name, spec.Pos(),
							fmt.Sprintf("%s imports %s of its family: declare it in family", pkg.name, to)})
				}
			}
		}
	}
	return problems
}

// sameFamily reports whether two packages share the directory below internal.
func sameFamily(a, b string) bool {
	first := func(s string) []string { return strings.SplitN(s, "/", 3) }
	x, y := first(a), first(b)
	return len(x) > 1 && len(y) > 1 && x[0] == y[0] && x[1] == y[1]
}

func owner(pkg string) string {
	o, _, _ := layerOf(pkg)
	return o
}
