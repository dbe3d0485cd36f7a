package serving

import "testing"

const large = `<cluster name="large">
  <network name="boot" subnet="127.0.0.0/8" insecure="yes"/>
  <server name="head" roles="head image" dhcp="off"><interface network="boot" address="127.0.0.2"/></server>
  <taxonomy><level name="rack" from="1" to="10"/><level name="node" from="1" to="256"/></taxonomy>
  <image name="compute" arch="amd64" master="dir:/master"><shared path="/usr"/>
    <file path="/etc/rack">{{.Node.Name}} {{.Node.Position.rack}}
</file></image>
  <nodes name="r{rack:02}n{node:03}" each="rack node" image="compute" servers="head">
    <interface name="eth0" network="boot" address="127.1.{rack}.{node-1}" mac="52:54:00:00:{rack:02x}:{node-1:02x}"/>
  </nodes>
</cluster>
`

// show lets all nodes follow a version, which must succeed.
func (s *site) show(number int) {
	s.t.Helper()
	s.declare(number, nil)
	s.reconcile()
	if s.unsettled.Load() || s.shows("r10n256") != number {
		s.t.Fatalf("not served as declared: %s", s.problem("r10n256"))
	}
}

func BenchmarkServingAll2560(b *testing.B) {
	s := newSite(b, large)
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		if n > 0 {
			b.Fatal("run it with -benchtime 1x: a replica is attached once")
		}
		b.StartTimer()
		s.show(1)
	}
}

func BenchmarkSwitchOfAll2560(b *testing.B) {
	s := newSite(b, large)
	s.show(1)
	for n := 1; b.Loop(); n++ {
		s.show(1 + n%2)
	}
}

func BenchmarkStateThatChangesNothingFor2560(b *testing.B) {
	s := newSite(b, large)
	s.show(1)
	for b.Loop() {
		s.show(1)
	}
}
