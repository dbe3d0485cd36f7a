package dns

import (
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// Sizes of messages over UDP.
const (
	plainSize = 512  // RFC 1035 section 2.3.4: of a client that does not tell a size
	maxSize   = 1232 // what passes every link in one piece with IPv6, the size of DNS Flag Day 2020
)

// question is what a client asks, and how it can be answered.
type question struct {
	dnsmessage.Question
	header  dnsmessage.Header
	edns    bool
	version byte // of EDNS
	size    int  // of the answer, at most
}

// answer returns the answer to a message; nil: there is none, because it is no question. size is how many bytes the
// answer may have; 0: what the client says, as over UDP.
func (z *Zones) answer(message []byte, size int) []byte {
	q, code, ok := parse(message)
	if !ok {
		return nil
	}
	if size > 0 {
		q.size = size
	}
	if code != dnsmessage.RCodeSuccess {
		return z.build(&q, code, nil)
	}
	name := key(q.Name.String())
	zone := z.zoneOf(name)
	switch {
	case q.version != 0:
		return z.build(&q, badVersion, nil)
	case zone == "", q.Class != dnsmessage.ClassINET, q.Type == typeAXFR, q.Type == typeIXFR:
		return z.build(&q, dnsmessage.RCodeRefused, nil)
	}
	r, exists := z.names[name]
	if !exists {
		return z.build(&q, dnsmessage.RCodeNameError, func(b *dnsmessage.Builder) error { return z.authority(b, zone) })
	}
	return z.build(&q, dnsmessage.RCodeSuccess, func(b *dnsmessage.Builder) error {
		return z.write(b, &q, r, zone)
	})
}

// Values that package dnsmessage does not name.
const (
	typeIXFR   dnsmessage.Type  = 251 // RFC 1995
	typeAXFR   dnsmessage.Type  = 252 // RFC 5936
	badVersion dnsmessage.RCode = 16  // RFC 6891 section 9
)

// parse reads a question. ok is false if the message is none. A code other than success is the answer.
func parse(message []byte) (q question, code dnsmessage.RCode, ok bool) {
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(message); err != nil || q.header.Response {
		return q, 0, false
	}
	q.size = plainSize
	if q.header.OpCode != 0 {
		return q, dnsmessage.RCodeNotImplemented, true
	}
	if q.Question, err = p.Question(); err != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	if _, err = p.Question(); err != dnsmessage.ErrSectionDone {
		return q, dnsmessage.RCodeFormatError, true
	}
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return q, dnsmessage.RCodeFormatError, true
	}
	for {
		h, err := p.AdditionalHeader()
		switch {
		case err == dnsmessage.ErrSectionDone:
			return q, dnsmessage.RCodeSuccess, true
		case err != nil, h.Type == dnsmessage.TypeOPT && q.edns:
			return q, dnsmessage.RCodeFormatError, true
		case h.Type == dnsmessage.TypeOPT:
			q.edns, q.version = true, byte(h.TTL>>16)
			q.size = min(max(int(h.Class), plainSize), maxSize)
		}
		if p.SkipAdditional() != nil {
			return q, dnsmessage.RCodeFormatError, true
		}
	}
}

// build returns an answer, with what body adds to it. One that is too large is cut to its question.
func (z *Zones) build(q *question, code dnsmessage.RCode, body func(*dnsmessage.Builder) error) []byte {
	h := dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, RecursionDesired: q.header.RecursionDesired,
		Authoritative: code == dnsmessage.RCodeSuccess || code == dnsmessage.RCodeNameError, RCode: code & 0xf,
	}
	for {
		out, err := z.message(q, h, code, body)
		if err != nil {
			code, body = dnsmessage.RCodeServerFailure, nil
			h.Authoritative, h.RCode = false, code
			if out, err = z.message(q, h, code, nil); err != nil {
				return nil
			}
		}
		if len(out) <= q.size || body == nil {
			return out
		}
		h.Truncated, body = true, nil
	}
}

// message writes one answer.
func (z *Zones) message(
	q *question, h dnsmessage.Header, code dnsmessage.RCode, body func(*dnsmessage.Builder) error,
) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, plainSize), h)
	b.EnableCompression()
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if q.Name.Length > 0 {
		if err := b.Question(q.Question); err != nil {
			return nil, err
		}
	}
	if body != nil {
		if err := body(&b); err != nil {
			return nil, err
		}
	}
	if q.edns {
		if err := b.StartAdditionals(); err != nil {
			return nil, err
		}
		var opt dnsmessage.ResourceHeader
		if err := opt.SetEDNS0(maxSize, code, false); err != nil {
			return nil, err
		}
		if err := b.OPTResource(opt, dnsmessage.OPTResource{}); err != nil {
			return nil, err
		}
	}
	return b.Finish()
}

// write adds the records of a name that a question is about, or the SOA record if there are none.
func (z *Zones) write(b *dnsmessage.Builder, q *question, r *records, zone string) error {
	if err := b.StartAnswers(); err != nil {
		return err
	}
	wants := func(t dnsmessage.Type) bool { return q.Type == t || q.Type == dnsmessage.TypeALL }
	h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	found := 0
	add := func(err error) error { found++; return err }
	for _, a := range r.addresses {
		if kind := addressType(a); !wants(kind) {
			continue
		}
		if err := add(writeAddress(b, h, a)); err != nil {
			return err
		}
	}
	if wants(dnsmessage.TypePTR) {
		for _, target := range r.pointers {
			if err := add(b.PTRResource(h, dnsmessage.PTRResource{PTR: target})); err != nil {
				return err
			}
		}
	}
	if apex := key(q.Name.String()) == zone; apex && wants(dnsmessage.TypeNS) {
		for _, s := range z.servers {
			if err := add(b.NSResource(h, dnsmessage.NSResource{NS: s})); err != nil {
				return err
			}
		}
	} else if apex && q.Type == dnsmessage.TypeSOA {
		return z.soa(b, zone)
	}
	if found > 0 {
		return nil
	}
	return z.authority(b, zone)
}

func addressType(a netip.Addr) dnsmessage.Type {
	if a.Is4() {
		return dnsmessage.TypeA
	}
	return dnsmessage.TypeAAAA
}

func writeAddress(b *dnsmessage.Builder, h dnsmessage.ResourceHeader, a netip.Addr) error {
	if a.Is4() {
		return b.AResource(h, dnsmessage.AResource{A: a.As4()})
	}
	return b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()})
}

// authority tells that there is no such record, and for how long that holds (RFC 2308 section 2).
func (z *Zones) authority(b *dnsmessage.Builder, zone string) error {
	if err := b.StartAuthorities(); err != nil {
		return err
	}
	return z.soa(b, zone)
}

// soa writes the SOA record of a zone (RFC 1035 section 3.3.13).
func (z *Zones) soa(b *dnsmessage.Builder, zone string) error {
	apex := z.apexes[zone]
	mailbox, err := dnsmessage.NewName("root." + apex.String())
	if err != nil {
		mailbox = apex
	}
	h := dnsmessage.ResourceHeader{Name: apex, Class: dnsmessage.ClassINET, TTL: ttl}
	return b.SOAResource(h, dnsmessage.SOAResource{
		NS: z.servers[0], MBox: mailbox, Serial: z.serial, Refresh: 3600, Retry: 600, Expire: 1209600, MinTTL: ttl,
	})
}
