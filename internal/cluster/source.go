package cluster

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Limits on what a description may be, so that a hostile one cannot eat the machine. Two thousand nodes are a hundredth of them.
const (
	maxSourceBytes = 32 << 20 // of one file
	maxElements    = 500_000
	maxNodes       = 100_000
	maxServers     = 10_000
	maxCardsEach   = 64 // of one node or server
	maxLevels      = 16
	maxServersEach = 16       // of one node
	maxExpression  = 256      // bytes of an attribute in which expressions are evaluated
	maxRendered    = 16 << 20 // bytes of one rendered file
)

// limits bound what an expanded description amounts to.
type limits struct {
	nodes   int
	cards   int // of all nodes and servers
	members int // the work of all groups' node sets, in names
}

func defaultLimits() limits { return limits{nodes: maxNodes, cards: 400_000, members: 2_000_000} }

// Source is a description to be parsed: the main file, and the way to the files that it names.
type Source struct {
	Name string // for messages: "cluster.xml"
	XML  []byte

	// Open returns the content of a file that the description names: a slash-separated path relative to the main
	// file, never leading out of its directory. Nil: there are no other files.
	Open func(name string) ([]byte, error)
}

// SourceFile is one of the files that a description consists of.
type SourceFile struct {
	Name string
	Data []byte
}

// Sources returns all files that the description consists of, the main one first: what has to be kept to parse it again.
func (c *Cluster) Sources() []SourceFile { return c.sources }

// Load parses the description in a file, and the files beside it that it names. Problems in it are returned as *Problems.
func Load(path string) (*Cluster, error) {
	xml, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load cluster description: %w", err)
	}
	dir := filepath.Dir(path)
	return Parse(Source{
		Name: path,
		XML:  xml,
		Open: func(name string) ([]byte, error) { return readFile(filepath.Join(dir, filepath.FromSlash(name))) },
	})
}

// readFile reads a file but not more than a little over what Parse accepts.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSourceBytes+1))
}
