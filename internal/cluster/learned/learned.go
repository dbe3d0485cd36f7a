// Package learned is the list of hardware addresses that were learned from machines that asked for a boot. It is kept
// beside a cluster description and overrides it.
//
// # Format
//
// A file of comma-separated values (RFC 4180). The first line names the columns: node,interface,mac,stated. The last
// one is the address that the description stated for the card when the other one was learned; it is empty if there was
// none. If the description states a third address later, package cluster lets the description win.
//
// # What it must not know
//
// Which nodes there are.
package learned

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"slices"
)

// File is the name that the list has among the files of a description.
const File = "learned.csv"

const (
	maxBytes = 7 << 20
	header   = "node,interface,mac,stated\n"
)

// Fact is the hardware address of one card of a node.
type Fact struct {
	Node, Interface string
	MAC             net.HardwareAddr // six bytes; of InfiniBand 20, or the GUID of the port
	Stated          net.HardwareAddr // by the description, when MAC was learned; nil: none
}

// Parse decodes a list. No data is an empty list.
func Parse(data []byte) ([]Fact, error) {
	if len(data) == 0 {
		return nil, nil
	}
	if len(data) > maxBytes {
		return nil, fmt.Errorf("parse %s: larger than %d bytes", File, maxBytes)
	}
	rest, ok := bytes.CutPrefix(data, []byte(header))
	if !ok {
		return nil, fmt.Errorf("parse %s: its first line is not %q: it was written by a newer version of DIM", File,
			header[:len(header)-1])
	}
	r := csv.NewReader(bytes.NewReader(rest))
	r.FieldsPerRecord = 4
	var list []Fact
	for line := 2; ; line++ {
		record, err := r.Read()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: after line %d: %v", File, line-1, err)
		}
		f := Fact{Node: record[0], Interface: record[1]}
		if f.MAC, err = net.ParseMAC(record[2]); err == nil && record[3] != "" {
			f.Stated, err = net.ParseMAC(record[3])
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: line %d: %v", File, line, err)
		}
		list = append(list, f)
	}
}

// Format encodes a list, nil if it is empty. It is the inverse of Parse.
func Format(list []Fact) []byte {
	if len(list) == 0 {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(header)
	w := csv.NewWriter(&b)
	for _, f := range list {
		// A bytes.Buffer does not fail.
		_ = w.Write([]string{f.Node, f.Interface, f.MAC.String(), f.Stated.String()})
	}
	w.Flush()
	return b.Bytes()
}

// Renamed returns a list in its encoded form with other names of nodes: names has the new ones by the old ones. The
// error is that of Parse.
func Renamed(data []byte, names map[string]string) ([]byte, error) {
	if len(names) == 0 {
		return data, nil
	}
	list, err := Parse(data)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if to, ok := names[list[i].Node]; ok {
			list[i].Node = to
		}
	}
	return Format(list), nil
}

// With returns a list with f, in place of the fact that it has about the same card.
func With(list []Fact, f Fact) []Fact {
	list = slices.Clone(list)
	i := slices.IndexFunc(list, func(x Fact) bool { return x.Node == f.Node && x.Interface == f.Interface })
	if i < 0 {
		return append(list, f)
	}
	list[i] = f
	return list
}
