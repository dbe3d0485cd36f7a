package inventory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func isNode(name string) bool { return slices.Contains([]string{"n01", "n02", "n03"}, name) }

// listed writes rows as "n01 eth0 52:54:00:4d:00:01".
func listed(rows []Row) (list []string) {
	for _, r := range rows {
		mac, _ := ParseMAC(r.MAC.Text)
		list = append(list, strings.Join(strings.Fields(fmt.Sprint(r.Node.Text, " ", r.Interface.Text, " ", mac)), " "))
	}
	return list
}

func TestEverySpellingOfAMACIsRead(t *testing.T) {
	for _, text := range []string{
		"52:54:00:4d:00:0a", "52-54-00-4D-00-0A", "5254.004d.000a", "5254-004d-000a", "5254:004D:000A", "525400-4d000a",
		"5254004d000a", "5254004D000A", " 52:54:0:4d:0:a ", "52 54 00 4d 00 0a", "52.54.00.4d.00.0a",
	} {
		if mac, ok := ParseMAC(text); !ok || mac.String() != "52:54:00:4d:00:0a" {
			t.Errorf("%q: %v", text, mac)
		}
	}
	for _, text := range []string{
		"", "n01", "52:54:00:4d:00", "52:54:00:4d:00:0a:0b", "52:54-00:4d:00:0a", "52:54:00:4d:00:0g", "5254004d000",
		"525:400:4d0:00a", "52::54:00:4d:0a", "10.77.0.11", "cafe", "5254004d000a00", "5:2:5:4:0:0:4:d:0:0:0:a",
	} {
		if mac, ok := ParseMAC(text); ok {
			t.Errorf("%q is read as %v", text, mac)
		}
	}
}

func TestListsAreReadAsPeopleHaveThem(t *testing.T) {
	const first, second = "52:54:00:4d:00:01", "52:54:00:4d:00:02"
	two := []string{"n01 " + first, "n02 " + second}
	cards := []string{"n01 eth0 " + first, "n02 eth0 " + second}
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"ours", "node,interface,mac\nn01,eth0," + first + "\nn02,eth0," + second + "\n", cards},
		{"a byte order mark, and lines as in DOS", "\ufeffnode,interface,mac\r\nn01,eth0," + first + "\r\nn02,eth0," +
			second + "\r\n", cards},
		{"semicolons", "Host name;MAC address\nn01;52-54-00-4D-00-01\nn02;52-54-00-4D-00-02\n", two},
		{"a separator for a spreadsheet", "sep=;\r\nname;hwaddr\r\nn01;" + first + "\r\nn02;" + second, two},
		{"tabs", "MAC\tnode\tlocation\n" + first + "\tn01\track 1, below\n" + second + "\tn02\t\n", two},
		{"tabs without names", "n01\t\t5254.004d.0001\tDell, 2019\nn02\t5254.004d.0002\n", two},
		{"more columns", "Rack,Serial,Node,NIC,Bought,MAC\n1,A1,n01,eth0,2019,5254004D0001\n" +
			"1,A2,n02,eth0,,5254004D0002\n", cards},
		{"more columns without names", "1,A1,n01," + first + ",Dell\n1,A2,n02," + second + ",\"Dell, new\"\n", two},
		{"an interface without names", "n01,eth0," + first + "\nn02,eth0," + second + "\n", cards},
		{"an empty interface", "node,interface,mac\nn01,," + first + "\nn02,," + second + "\n", two},
		{"ethers", "# rack 1\n52:54:0:4d:0:1\tn01\n\n 52:54:0:4d:0:2   n02  # the \"new\" one\n", two},
		{"xCAT", "#node,interface,mac,comments,disable\n\"n01\",,\"" + first + "\",,\n\"n02\",,\"" + second +
			"\",,\n\"n03\",,\"52:54:00:4d:00:03\",,\"1\"\n", two},
		{"several cards in xCAT", "#node,interface,mac\n" +
			"n01,eth0," + first + "!n01|02:00:00:00:00:01!n01-ib0\nn02,eth0," + second + "|02:00:00:00:00:02!*NOIP*\n",
			[]string{"n01 eth0 " + first, "n01-ib0 02:00:00:00:00:01", "n02 eth0 " + second}},
		{"nodes without a MAC yet", "node,mac\nn01," + first + "\nn02," + second + "\nn03,\n,\n", two},
		{"a comment that looks like columns", "node,mac\nn01," + first + "\n#node,mac\nn02," + second + "\n", two},
		{"nothing", "# node mac\n\n", nil},
	} {
		rows, problems := Parse([]byte(tt.text), isNode)
		if d := cmp.Diff(tt.want, listed(rows)); d != "" || len(problems) > 0 {
			t.Errorf("%s: %s%v", tt.name, d, problems)
		}
	}
}

func TestAllProblemsAreReportedWithTheirPlaces(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"UTF-16", "\xff\xfen\x00", "1:1 the file is in UTF-16"},
		{"no MAC and no names", "n01,eth0\n",
			"1:1 the first line has no hardware address and does not name the columns"},
		{"no MAC in a column", "node;nic\n", "1:1 the column \"mac\" is missing"},
		{"two columns", "node;mac;hwaddr\n", "1:10 columns \"mac\" and \"hwaddr\" mean the same"},
		{"several lines", "n01,52:54:00:4d:00:01\nn02,52:54:00:zz:00:02\n\n" +
			"n03,eth0\n52:54:00:4d:00:03\n\"\n",
			"2:5 the line has no hardware address: \"52:54:00:zz:00:02\" is none; " +
				"4:5 the line has no hardware address: \"eth0\" is none; 5:1 the line names no node; " +
				"6:3 extraneous or missing \" in quoted-field"},
		{"a byte order mark", "\ufeffn01,52:54:00:4d:00:01\nn02,52\n",
			"2:5 the line has no hardware address: \"52\" is none"},
		{"a line after sep=", "sep=;\nn01;52:54:00:4d:00:01\nn02;5\n",
			"3:5 the line has no hardware address: \"5\" is none"},
		{"cards in xCAT", "node,mac\nn01,52:54:00:4d:00:01|52:54:00:4d:00:02\n",
			"2:5 \"52:54:00:4d:00:02\" does not say which card it is"},
	} {
		_, problems := Parse([]byte(tt.text), isNode)
		var got []string
		for _, p := range problems {
			got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Message))
		}
		if d := cmp.Diff(tt.want, strings.Join(got, "; ")); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// Each row and problem has a place in the file, and a list in the plain form is read back.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"node,interface,mac\nn01,eth0,52:54:00:4d:00:01\n", "52:54:0:4d:0:1\tn01 # x\n", "\ufeffa;b\r\n",
		"#node,interface,mac\n\"n01\",,\"52:54:00:4d:00:01!n01|52:54:00:4d:00:02!n01-ib0\"\n",
		"sep=;\nn01;5254004d0001\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := strings.Split(string(data), "\n")
		rows, problems := Parse(data, isNode)
		inside := func(line, column int) bool {
			return line >= 1 && line <= len(lines) && column >= 1 && column <= len(lines[line-1])+2
		}
		for _, p := range problems {
			if !inside(p.Line, p.Column) || p.Message == "" {
				t.Errorf("a problem at no place: %+v", p)
			}
		}
		for _, r := range rows {
			if !inside(r.MAC.Line, r.MAC.Column) || !inside(r.Node.Line, r.Node.Column) || r.Node.Text == "" {
				t.Errorf("a row at no place: %+v", r)
			}
		}
	})
}
