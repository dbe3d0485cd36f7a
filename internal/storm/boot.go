package storm

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"syscall"
	"time"

	"dim/internal/bootload"
	"dim/internal/nfs/nfsclient"
)

// bootSource is where the nodes of a target boot from, besides their roots.
type bootSource struct {
	skipped []string
	relay   *bootload.Relay // nil: the server answers no DHCP
	mac     net.HardwareAddr
	loader  string            // boot file of DHCP, which is fetched by TFTP; "": there is none
	digest  [sha256.Size]byte // of loader
	tftp    chan struct{}     // one for each transfer that may go on at a time
	script  bool              // there is a boot script, with a kernel
}

// maxTransfers is how many simulated nodes have a TFTP transfer at a time: half of those that a server has for others
// than its nodes.
const maxTransfers = 32

// open finds out which steps of a boot the server can take part in.
func (b *bootSource) open(ctx context.Context, t *target) error {
	if err := b.openDHCP(ctx, t); err != nil {
		return err
	}
	if t.As == "" {
		b.skip("boot files by HTTP", "no node of "+t.Server+" has the image of "+t.Ref)
		return nil
	}
	text, err := t.fetchScript(ctx, &http.Client{Transport: t.transport(0)})
	switch {
	case err != nil:
		b.skip("boot files by HTTP", err.Error())
	case len(assetPattern.FindAllString(text, -1)) != 2:
		b.skip("boot files by HTTP", "the version has no kernel that nodes could boot")
	default:
		b.script = true
	}
	return nil
}

func (b *bootSource) skip(what, why string) { b.skipped = append(b.skipped, what+": "+why) }

func (b *bootSource) close() {
	if b.relay != nil {
		_ = b.relay.Close()
	}
}

// openDHCP lets simulated node 0 ask for its address and its loader.
func (b *bootSource) openDHCP(ctx context.Context, t *target) (err error) {
	if t.MAC == "" {
		b.skip("DHCP and TFTP", "the server answers no DHCP, is another machine, or no node of its has the image")
		return nil
	}
	if b.mac, err = net.ParseMAC(t.MAC); err != nil {
		return err
	}
	conn, err := t.opt.Listen("udp4", relayAddr)
	if err != nil {
		return fmt.Errorf("storm: open a socket for DHCP: %w", err)
	}
	server, err := netip.ParseAddr(t.Address)
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	b.relay = bootload.NewRelay(conn, netip.AddrPortFrom(server, 67))
	b.tftp = make(chan struct{}, maxTransfers)
	if b.loader, err = b.relay.Boot(ctx, b.mac); err != nil {
		return fmt.Errorf("storm: %s: %w", t.Server, err)
	}
	if b.loader == "" {
		b.skip("TFTP", "no loader for UEFI firmware is installed")
		return nil
	}
	b.digest, err = t.fetchLoader(ctx, 0)
	return err
}

// relayAddr is the address of the relay: no simulated node has it.
const relayAddr = "127.83.255.254:67"

// askAddress lets a node ask for its address and fetch its loader, if there are any.
func (t *target) askAddress(ctx context.Context, number int) error {
	b := &t.boot
	if b.relay == nil {
		return nil
	}
	mac := append(net.HardwareAddr(nil), b.mac...)
	binary.BigEndian.PutUint16(mac[4:], uint16(number))
	loader, err := b.relay.Boot(ctx, mac)
	if err != nil || loader == "" {
		return err
	}
	select {
	case b.tftp <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-b.tftp }()
	got, err := t.fetchLoader(ctx, number)
	if err == nil && got != b.digest {
		err = fmt.Errorf("tftp %s: %w", loader, bootload.ErrWrongBytes)
	}
	return err
}

// fetchLoader returns the digest of the loader as it comes by TFTP.
func (t *target) fetchLoader(ctx context.Context, number int) (d [sha256.Size]byte, err error) {
	conn, err := t.listen(number)
	if err != nil {
		return d, err
	}
	defer conn.Close()
	server, err := netip.ParseAddr(t.Address)
	if err != nil {
		return d, err
	}
	sum := counted{Hash: sha256.New()}
	err = bootload.FetchTFTP(ctx, conn, netip.AddrPortFrom(server, t.Ports.TFTP), t.boot.loader, &sum)
	t.payload.Add(sum.size)
	return [sha256.Size]byte(sum.Sum(nil)), err
}

// counted is a hash that counts.
type counted struct {
	hash.Hash
	size uint64
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	c.size += uint64(len(p))
	return c.Hash.Write(p)
}

// listen opens a UDP socket of a node, on a port that only the superuser has.
func (t *target) listen(number int) (net.PacketConn, error) {
	for from := lastPort; ; from-- {
		conn, err := t.opt.Listen("udp4", netip.AddrPortFrom(t.source(number), uint16(from)).String())
		if !errors.Is(err, syscall.EADDRINUSE) || from == firstPort {
			return conn, err
		}
	}
}

// bootNode lets one node boot.
func (t *target) bootNode(ctx context.Context, number int) error {
	if err := t.askAddress(ctx, number); err != nil {
		return err
	}
	if t.boot.script {
		if err := t.fetchBootFiles(ctx, number); err != nil {
			return err
		}
	}
	conn, err := t.dial(ctx, number, t.Ports.NFS)
	if err != nil {
		return err
	}
	client := nfsclient.NewClient(conn)
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	defer client.Close()
	tree, err := client.Tree(fmt.Sprint(t.Paths, number))
	if err != nil {
		return fmt.Errorf("mount the root of a simulated node: %w", err)
	}
	n := bootload.Node{
		Number: number, Seed: t.opt.Seed, InFlight: inFlight, Tree: tree, Meter: &t.meter, Check: bootload.Verify,
	}
	if err := n.MakeOwn(tree.Root(), "storm"); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	return n.Boot(t.sample)
}

// onLoopback reports whether the server is on this machine.
func (t *target) onLoopback() bool {
	addr, err := netip.ParseAddr(t.Address)
	return !t.Remote || err == nil && addr.IsLoopback()
}

// source returns the address from which a node calls. On the server's own machine each has one on loopback. Elsewhere
// all have that of this machine in the network of the server.
func (t *target) source(number int) netip.Addr {
	if !t.onLoopback() {
		return netip.IPv4Unspecified()
	}
	return netip.AddrFrom4([4]byte{127, 83, byte(number / 250), byte(1 + number%250)})
}

// Ports that only the superuser has, which is how the server knows him. Lower ones may belong to services.
const firstPort, lastPort = 600, 1023

// dial connects a node to a port of the server, from a port that only the superuser has.
func (t *target) dial(ctx context.Context, number int, port uint16) (net.Conn, error) {
	to, tries := net.JoinHostPort(t.Address, fmt.Sprint(port)), 0
	for from := lastPort - number%(lastPort-firstPort); ; from-- {
		if from < firstPort {
			from = lastPort
		}
		local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(t.source(number), uint16(from)))
		conn, err := (&net.Dialer{LocalAddr: local, Control: shareAddress}).DialContext(ctx, "tcp", to)
		used := errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EADDRNOTAVAIL)
		if tries++; !used || tries > lastPort-firstPort {
			return conn, err
		}
	}
}

// shareAddress lets a socket have a local address that another one has or had a moment ago. Their other ends differ.
func shareAddress(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	return errors.Join(cerr, err)
}

// httpTimeout bounds the wait for the head of an answer. An initramfs is made when the first node asks for it.
const httpTimeout = 5 * time.Minute

func (t *target) transport(number int) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return t.dial(ctx, number, t.Ports.HTTP)
		},
		ResponseHeaderTimeout: httpTimeout, DisableCompression: true,
	}
}

// assetPattern finds the kernel and the initramfs in a boot script.
var assetPattern = regexp.MustCompile(`/boot/(?:kernel|initramfs)/[0-9a-f]{64}`)

// maxScript bounds a boot script.
const maxScript = 64 << 10

// fetchScript returns the boot script of the node in whose name the simulated ones ask. That is no boot of that node:
// the server knows by the address that it is not the node which asks.
func (t *target) fetchScript(ctx context.Context, c *http.Client) (string, error) {
	body, err := t.get(ctx, c, "/boot/ipxe")
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, maxScript))
	t.payload.Add(uint64(len(b)))
	return string(b), err
}

// get requests a path in the name of a node.
func (t *target) get(ctx context.Context, c *http.Client, path string) (io.ReadCloser, error) {
	to := url.URL{
		Scheme: "http", Host: net.JoinHostPort(t.Address, fmt.Sprint(t.Ports.HTTP)), Path: path,
		RawQuery: url.Values{"node": {t.As}}.Encode(),
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("get %s: %s", path, resp.Status)
	}
	return resp.Body, nil
}

// fetchBootFiles gets the script, the kernel and the initramfs, and verifies the last two.
func (t *target) fetchBootFiles(ctx context.Context, number int) error {
	tr := t.transport(number)
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	script, err := t.fetchScript(ctx, c)
	if err != nil {
		return err
	}
	assets := assetPattern.FindAllString(script, -1)
	if len(assets) != 2 {
		return errors.New("the boot script names no kernel any more")
	}
	for _, path := range assets {
		if err := t.fetchAsset(ctx, c, path); err != nil {
			return err
		}
	}
	return nil
}

func (t *target) fetchAsset(ctx context.Context, c *http.Client, path string) error {
	body, err := t.get(ctx, c, path)
	if err != nil {
		return err
	}
	defer body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, body)
	t.payload.Add(uint64(n))
	if err != nil {
		return fmt.Errorf("get %s: %w", path, err)
	}
	if want := path[len(path)-hex.EncodedLen(sha256.Size):]; hex.EncodeToString(sum.Sum(nil)) != want {
		return fmt.Errorf("get %s: %w", path, bootload.ErrWrongBytes)
	}
	return nil
}
