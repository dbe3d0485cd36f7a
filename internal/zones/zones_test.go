package zones

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/dns"
	"dim/internal/follow"
	"dim/internal/testkit"
)

const description = `<cluster name="small" domain="small.example">
  <network name="boot" subnet="10.77.0.0/24"/>
  <network name="ib" subnet="10.78.0.0/16"/>
  <server name="head" roles="head" dns="on"><interface network="boot" address="10.77.0.1"/></server>
  <server name="is1" roles="image" dns="on"><interface network="boot" address="10.77.0.2"/></server>
  <taxonomy><level name="rack" from="1" to="2"/><level name="node" from="1" to="2"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/srv/compute"/>
  <nodes name="r{rack}n{node}" each="node rack" image="compute" servers="is1">
    <interface name="eth0" network="boot" address="10.77.0.{rack*10+node}"/>
    <interface name="ib0" network="ib" address="10.78.{rack}.{node}"/>
  </nodes>
</cluster>
`

// serve serves the zones of a description on a port of loopback, over UDP and TCP, and returns the port.
func serve(t *testing.T, text string) (port int) {
	t.Helper()
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(text)}))(t)
	now := &follow.Declared{Cluster: c}
	now.State.Description = &coord.Description{Applied: time.Unix(1_700_000_000, 0)}
	source := &Source{Now: func() *follow.Declared { return now }, Log: slog.New(slog.DiscardHandler)}
	s := &dns.Server{Zones: source.Zones, Log: slog.New(slog.DiscardHandler)}
	ln := testkit.Value(net.Listen("tcp", "127.0.0.1:0"))(t)
	port = ln.Addr().(*net.TCPAddr).Port
	pc := testkit.Value(net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port)))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- s.Serve(ctx, pc) }()
	go func() { ended <- s.ServeTCP(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		testkit.Must(t, <-ended, <-ended)
	})
	return port
}

// dig asks as Debian's dig does, and returns its output in one line of words.
func dig(t *testing.T, port int, args ...string) string {
	t.Helper()
	testkit.NeedProgram(t, "dig")
	cmd := exec.CommandContext(t.Context(), "dig", append([]string{
		"@127.0.0.1", "-p", fmt.Sprint(port), "+time=20", "+tries=3", "+norecurse",
	}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func TestDigIsAnsweredForTheNamesOfTheClusterOnly(t *testing.T) {
	port := serve(t, description)
	for _, tt := range []struct{ question, want string }{
		{"r1n2.small.example", "status: NOERROR r1n2.small.example. 60 IN A 10.77.0.12"},
		{"R1N2.small.EXAMPLE", "R1N2.small.EXAMPLE. 60 IN A 10.77.0.12"},
		{"r1n2-ib0.small.example +tcp", "IN A 10.78.1.2 (TCP)"},
		{"head.small.example", "IN A 10.77.0.1"},
		{"-x 10.77.0.12", "12.0.77.10.in-addr.arpa. 60 IN PTR r1n2.small.example."},
		{"-x 10.78.2.1", "IN PTR r2n1-ib0.small.example."},
		{"small.example NS", "NS head.small.example. small.example. 60 IN NS is1.small.example."},
		{"small.example SOA", "ANSWER: 1, SOA head.small.example. root.small.example. 1700000000 3600 600 1209600 60"},
		{"r1n2.small.example AAAA", "status: NOERROR ANSWER: 0, AUTHORITY: 1 IN SOA head.small.example."},
		{"77.10.in-addr.arpa", "status: REFUSED"},
		{"r9n9.small.example", "status: NXDOMAIN small.example. 60 IN SOA"},
		{"a.r1n2.small.example", "status: NXDOMAIN"},
		{"-x 10.77.0.99", "status: NXDOMAIN 0.77.10.in-addr.arpa. 60 IN SOA"},
		{"1.0.77.10.in-addr.arpa A", "status: NOERROR ANSWER: 0, AUTHORITY: 1"},
		{"example.com", "status: REFUSED ANSWER: 0, AUTHORITY: 0"},
		{"notsmall.example", "status: REFUSED"},
		{"example", "status: REFUSED"},
		{". NS", "status: REFUSED"},
		{"-x 10.79.0.1", "status: REFUSED"},
		{"small.example AXFR +tcp", "Transfer failed."},
		{"head.small.example TXT -c CH", "status: REFUSED"},
		{"head.small.example +edns=1 +noednsnegotiation", "status: BADVERS"},
		{"head.small.example +noedns", "status: NOERROR IN A 10.77.0.1"},
		{"head.small.example +opcode=UPDATE", "status: NOTIMP"},
	} {
		out := dig(t, port, strings.Fields(tt.question)...)
		rest, missing := out, ""
		for _, part := range parts(tt.want) {
			_, after, ok := strings.Cut(rest, part)
			if !ok {
				missing = part
				break
			}
			rest = after
		}
		if missing != "" {
			t.Errorf("%s: no %q in %s", tt.question, missing, out)
		}
	}
	if out := dig(t, port, "head.small.example"); !strings.Contains(out, "flags: qr aa;") {
		t.Errorf("the answer is not authoritative: %s", out)
	}
	if out := dig(t, port, "example.com"); strings.Contains(out, "flags: qr aa;") {
		t.Errorf("a refusal is authoritative: %s", out)
	}
}

// parts splits what is expected where the output has something else in between.
func parts(want string) []string {
	var list []string
	for _, word := range []string{
		" ANSWER:", " AUTHORITY:", " IN ", " (TCP)", " SOA head", " small.", " r1n2", " 0.77",
	} {
		want = strings.ReplaceAll(want, word, "\x00"+word[1:])
	}
	for part := range strings.SplitSeq(want, "\x00") {
		list = append(list, strings.TrimSpace(part))
	}
	return list
}

func TestHostResolvesAsAResolverDoes(t *testing.T) {
	testkit.NeedProgram(t, "host")
	port := serve(t, description)
	for question, want := range map[string]string{
		"r1n2.small.example": "r1n2.small.example has address 10.77.0.12",
		"10.77.0.12":         "12.0.77.10.in-addr.arpa domain name pointer r1n2.small.example.",
	} {
		cmd := exec.CommandContext(t.Context(), "host", "-W", "20", "-p", fmt.Sprint(port), question, "127.0.0.1")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: %v\n%s", question, err, out)
		}
	}
}

// An answer that does not fit is cut over UDP, and complete over TCP.
func TestLongAnswersComeOverTCP(t *testing.T) {
	text := strings.Replace(description, `<server name="is1" roles="image" dns="on"><interface network="boot" `+
		`address="10.77.0.2"/></server>`, `<servers name="is{i}" count="90" roles="image" dns="on"><interface `+
		`network="boot" address="10.77.0.{100+i}"/></servers>`, 1)
	port := serve(t, text)
	if out := dig(t, port, "small.example", "NS", "+ignore"); !strings.Contains(out, "flags: qr aa tc;") {
		t.Errorf("over UDP: %s", out)
	}
	out := dig(t, port, "small.example", "NS")
	if strings.Count(out, " IN NS is") != 90 || !strings.Contains(out, "Truncated, retrying in TCP") {
		t.Errorf("with another try over TCP: %s", out)
	}
}

func TestTheZonesOfADescriptionAreMadeOnceAndFollowIt(t *testing.T) {
	c := testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(description)}))(t)
	now := &follow.Declared{Cluster: c}
	s := &Source{Now: func() *follow.Declared { return now }, Log: slog.New(slog.DiscardHandler)}
	first := s.Zones()
	if first == nil || s.Zones() != first {
		t.Error("the zones were made anew")
	}
	off := strings.ReplaceAll(description, ` dns="on"`, "")
	now = &follow.Declared{
		Cluster: testkit.Value(cluster.Parse(cluster.Source{Name: "cluster.xml", XML: []byte(off)}))(t),
	}
	if s.Zones() != nil {
		t.Error("zones are served without dns=\"on\"")
	}
	if now = nil; s.Zones() != nil {
		t.Error("zones are served without a description")
	}
}

func TestNamesThatAreTooLongAreLeftOut(t *testing.T) {
	c := &cluster.Cluster{
		Domain:  strings.Repeat("long.", 40) + "example",
		Servers: []*cluster.Server{{Name: "s", DNS: true}},
	}
	for _, name := range []cluster.NodeName{"n1", cluster.NodeName(strings.Repeat("n", 60))} {
		c.Nodes = append(c.Nodes, &cluster.Node{
			Name: name, Interfaces: []*cluster.Interface{{Name: "eth0", Address: netip.MustParseAddr("10.0.0.1")}},
		})
	}
	z, err := zonesOf(c, 1)
	if z == nil || err == nil || !strings.Contains(err.Error(), "nnnn") {
		t.Errorf("%v, %v", z, err)
	}
}
