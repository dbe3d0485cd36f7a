package rules

import (
	"fmt"
	"go/ast"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// layer is a level of the architecture. Imports go down only.
type layer int

const (
	words    layer = iota // vocabulary: the standard library and other words only
	keeping               // what is on disk and in etcd
	deeds                 // what DIM does; on the same height:
	protocol              // how the world asks for it; the two columns know nothing of each other
	known                 // what this server knows of the cluster and its nodes: here and above the columns meet
	parts                 // one decision of the daemon each
	answers               // what people and programs are told
	assembly              // what wires all of it
	program               // cmd, benchmarks, whole-system tests
)

// layers has the layer of each package. A package that is not in it breaks the rule. A package below another
// ("internal/cluster/nodeset" below "internal/cluster") has the same layer, unless it is in the table itself.
var layers = map[string]layer{
	"internal/image":    words,
	"internal/quantity": words, // how numbers and sizes are written
	"internal/cluster":  words,
	"internal/caller":   words, // who is at the other end of a connection
	"internal/meter":    words, // what the calls of a client cost
	"internal/bounds":   words, // what is in use, within limits
	"internal/procstat": words, // what a process and its machine have used
	"internal/capacity": words, // what limits servers, and how many are needed
	"internal/loglimit": words, // how often one cause is logged
	"internal/vfs":      words,
	"internal/durable":  words,
	"internal/kmod":     words, // the files that describe kernel modules
	"internal/pkgdb":    words, // the databases of package managers
	"internal/verdict":  words, // what a change means for what runs
	"internal/secrets":  words, // what a master should not give away
	"internal/textdiff": words,
	"internal/nodediff": words, // what two nodes have, compared
	"internal/disktest": words, // disks of tests; no program imports it
	"internal/problems": words,
	"internal/testkit":  words, // helpers of tests; no program imports it
	"internal/sysfile":  words, // system calls on file descriptors
	"internal/diskroom": words, // how much of a disk may be taken
	"internal/heap":     words, // memory for the system
	"internal/periodic": words, // a function at intervals
	"internal/rootpath": words, // symbolic links within a root
	"internal/xzlimit":  words, // how much memory an xz file wants
	"internal/pax":      words, // the headers of tar archives
	"internal/control":  words, // what can be asked of the daemon

	"internal/recordmerge": words, // three states of a file that consists of records

	"internal/steadyclock": keeping, // the time by which old things are removed

	"internal/diskmark": keeping, // what tells an old copy of a disk

	"internal/confine": keeping, // a process that reads untrusted bytes

	"internal/store": keeping,
	"internal/coord": keeping,
	"internal/pki":   keeping,
	"internal/layer": keeping, // the form of a layer on disk

	"internal/vfs/dirfs":   keeping, // a plain directory as a vfs.FS: the ground truth of tests
	"internal/vfs/vfstest": keeping, // the battery; no program imports it

	"internal/capture":   deeds,
	"internal/watch":     deeds,
	"internal/replica":   deeds, // what a node calls
	"internal/replicate": deeds, // versions of other servers
	"internal/layers":    deeds, // what administrators do to layers
	"internal/leftover":  deeds, // what removed nodes have left
	"internal/rollout":   deeds,
	"internal/boot":      deeds,
	"internal/push":      deeds,
	"internal/initramfs": deeds,
	"internal/nodeinit":  deeds,
	"internal/nodefile":  deeds,
	"internal/versionfs": deeds,
	"internal/checkout":  deeds,
	"internal/backup":    deeds,
	"internal/compare":   deeds,

	"internal/migrate": deeds, // descriptions made of other programs' files

	"internal/bootload": protocol, // the calls of nodes that boot

	"internal/oncrpc": protocol,
	"internal/nfs":    protocol,
	"internal/dhcp":   protocol,
	"internal/tftp":   protocol,
	"internal/fuse":   protocol,
	"internal/ra":     protocol,
	"internal/dns":    protocol,

	"internal/control/server": protocol,
	"internal/control/client": protocol,

	"internal/follow":   known, // the declared state
	"internal/liveness": known, // which nodes are up
	"internal/timeline": known, // where the time of a boot went
	"internal/fleet":    known, // what other servers hold and show

	"internal/backup/stopped": known, // a data directory on which no daemon runs

	"internal/peer": known, // the HTTP API between servers

	"internal/admission": known, // which connections are taken

	"internal/membership": parts, // which servers are in the cluster, and their certificates

	"internal/versions":  parts, // numbers, publication and removal of versions
	"internal/holdings":  parts, // which versions the store has
	"internal/serving":   parts, // which root a caller gets
	"internal/bootfiles": parts, // what nodes boot
	"internal/masters":   parts, // captures and watches
	"internal/driver":    parts, // rollouts
	"internal/expiry":    parts, // what is removed after its time
	"internal/reporting": parts, // what this server reports
	"internal/loadtest":  parts, // roots for load tests
	"internal/storm":     parts, // the load test itself

	"internal/api":     answers,
	"internal/metrics": answers,
	"internal/zones":   answers, // names of the cluster, for DNS
	"internal/forward": answers, // what other servers are asked for a head

	"internal/daemon": assembly,
	"internal/lab":    assembly,

	"internal/rules": program,
	"cmd":            program,
	"e2e":            program,
	"bench":          program,
}

// layerOf returns the layer of a package, and the package that has it in the table.
func layerOf(pkg string) (owner string, l layer, ok bool) {
	for owner = pkg; owner != "."; owner = filepath.Dir(owner) {
		if l, ok := layers[owner]; ok {
			return owner, l, true
		}
	}
	return "", 0, false
}

func TestEveryPackageHasALayer(t *testing.T) {
	seen := map[string]bool{}
	check(t, func(f *file, report func(ast.Node, string, ...any)) {
		if _, _, ok := layerOf(f.pkg); !ok && !seen[f.pkg] {
			seen[f.pkg] = true
			report(f.ast.Name, "package %s has no layer: add it to layers in internal/rules", f.pkg)
		}
	})
}

// sideways has the allowed imports within one layer, with reasons.
var sideways = map[[2]string]string{
	{"internal/nfs", "internal/oncrpc"}:       "NFS is spoken over RPC",
	{"internal/bootload", "internal/nfs"}:     "a node's calls are those of an NFS client",
	{"internal/masters", "internal/versions"}: "a capture gets its number and is published there",
	{"internal/leftover", "internal/replica"}: "what removed nodes have left is beside the layers of the others",
	{"internal/layers", "internal/replica"}:   "what administrators do to a layer is done by an Edit of its replica",
}

func TestImportsGoDown(t *testing.T) { check(t, checkImports) }

func checkImports(f *file, report func(ast.Node, string, ...any)) {
	for _, spec := range f.ast.Imports {
		if problem := importProblem(f, importPath(spec)); problem != "" {
			report(spec, "%s", problem)
		}
	}
}

func importPath(spec *ast.ImportSpec) string {
	path, _ := strconv.Unquote(spec.Path.Value)
	return path
}

// importProblem returns the reason why a file may not import path, or "".
func importProblem(f *file, path string) string {
	from, height, _ := layerOf(f.pkg)
	ours, local := strings.CutPrefix(path, "dim/")
	if !local {
		if height == words && !f.test && strings.Contains(strings.Split(path, "/")[0], ".") {
			return fmt.Sprintf("%s is vocabulary and imports %s: the standard library only", from, path)
		}
		return ""
	}
	to, depth, ok := layerOf(ours)
	switch {
	case !ok || to == from:
		return "" // TestEveryPackageHasALayer reports the first
	case f.test && depth <= height:
		return "" // a test may use a neighbour as its oracle or tool, never what stands above
	case height == program && depth <= program && !strings.HasPrefix(to, "cmd"):
		return ""
	case height == protocol && (to == "internal/image" || to == "internal/cluster" || to == "internal/caller"):
		return fmt.Sprintf("%s is a protocol and imports %s: protocols know nothing of images and clusters", from, to)
	case height == protocol && depth == keeping:
		return fmt.Sprintf("%s is a protocol and imports %s: protocols see trees through vfs only", from, to)
	case height == protocol && depth == deeds, height == deeds && depth == protocol:
		return fmt.Sprintf("%s imports %s: the two columns meet in daemon only", from, to)
	case depth < height, height == words && depth == words, sideways[[2]string{from, to}] != "":
		return ""
	case depth == height:
		return fmt.Sprintf("%s imports %s, which stands beside it: declare the interface that is needed", from, to)
	}
	return fmt.Sprintf("%s imports %s, which stands above it", from, to)
}

// testOnly are modules for tests. The programs must not contain them.
var testOnly = []string{
	"github.com/google/go-cmp", "github.com/rogpeppe/go-internal", "pgregory.net/rapid", "github.com/google/gopacket",
	"github.com/buildbarn/go-xdr", "go.uber.org/goleak", "github.com/cpuguy83/go-md2man", "testing",
}

// testImporters are packages of other modules that import such a module, with reasons.
var testImporters = map[string]string{
	"go.etcd.io/etcd/server/v3/storage/backend": "compares databases with go-cmp",
}

func TestProgramsDoNotImportTestPackages(t *testing.T) {
	listed, err := goList()
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string][]string{}
	for _, l := range listed {
		imports[l.ImportPath] = l.Imports
	}
	seen := map[string]bool{}
	var walk func(program, path string)
	walk = func(program, path string) {
		if seen[program+" "+path] {
			return
		}
		seen[program+" "+path] = true
		for _, dep := range imports[path] {
			if module := inModule(dep, testOnly); module != "" && inModule(path, []string{module}) == "" &&
				testImporters[path] == "" {
				t.Errorf("%s contains %s, which %s imports", program, dep, path)
			}
			walk(program, dep)
		}
	}
	walk("cmd/dim", "dim/cmd/dim")
	walk("cmd/dim-init", "dim/cmd/dim-init")
}

func inModule(pkg string, modules []string) string {
	for _, m := range modules {
		if pkg == m || strings.HasPrefix(pkg, m+"/") {
			return m
		}
	}
	return ""
}
