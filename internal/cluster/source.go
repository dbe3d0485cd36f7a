package cluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Limits of a description, so that a hostile one cannot exhaust the machine. They are far above what a real cluster
// needs.
const (
	maxSourceBytes = 7 << 20 // of one file; the shared state takes all files of a description as one value of 10 MB
	maxElements    = 500_000
	maxNodes       = 100_000
	maxServers     = 10_000
	maxCardsEach   = 64 // of one node or server
	maxLevels      = 16
	maxServersEach = 16       // of one node
	maxExpression  = 256      // bytes of an attribute that contains expressions
	maxRendered    = 16 << 20 // bytes of one rendered file
)

// limits bound the size of an expanded description.
type limits struct {
	nodes   int
	cards   int // of all nodes and servers
	members int // names that are looked at while the node sets of all groups are expanded
}

func defaultLimits() limits { return limits{nodes: maxNodes, cards: 400_000, members: 2_000_000} }

// Source is a description to be parsed: the main file, and access to the files that it names.
type Source struct {
	Name string // for messages: "cluster.xml"
	XML  []byte

	// Open returns the content of a file that the description names. The name is a slash-separated path relative to
	// the main file's directory, and never leads out of it. Nil: there are no other files.
	Open func(name string) ([]byte, error)

	// Learned is the list of learned hardware addresses, in the form of package learned. It is one of Sources, with
	// the name learned.File.
	Learned []byte
}

// SourceFile is one file of a description.
type SourceFile struct {
	Name string
	Data []byte
}

// Sources returns all files of the description, the main one first. They are what Parse needs to make the Cluster
// again.
func (c *Cluster) Sources() []SourceFile { return c.sources }

// Warnings returns what is valid in the description, but probably not meant, sorted by position.
func (c *Cluster) Warnings() []Problem { return c.warnings }

// Load parses the description in a file, and the files that it names. It returns mistakes in the description as
// *Problems.
func Load(path string) (*Cluster, error) {
	xml, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load cluster description: %w", err)
	}
	dir := filepath.Dir(path)
	return Parse(Source{
		Name: path,
		XML:  xml,
		Open: func(name string) ([]byte, error) {
			return readFile(filepath.Join(dir, filepath.FromSlash(name)))
		},
	})
}

// readFile reads a file, up to one byte more than Parse accepts.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSourceBytes+1))
}
