package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dim/internal/lab/netns"
)

// Firmware is the way in which a guest boots.
type Firmware string

// The firmwares.
const (
	Direct   Firmware = "direct"    // QEMU loads GuestSpec.Kernel and Initrd; no network boot
	BIOS     Firmware = "bios"      // SeaBIOS with the iPXE ROM of the card
	UEFI     Firmware = "uefi"      // OVMF, PXE over IPv4
	UEFIHTTP Firmware = "uefi-http" // OVMF, HTTP Boot over IPv4 only
)

// ovmf lists the files of OVMF as Debian and Ubuntu install them. The 4 MB builds are tried first.
var ovmf = [...]struct{ code, vars string }{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
}

// NIC is one network card of a guest. The guest boots from the first one.
type NIC struct {
	Tap   string // see Net.Tap
	MAC   string // "52:54:00:…"
	Model string // QEMU's device; "": virtio-net-pci
	NoROM bool   // the firmware's own network client boots, not the iPXE in the ROM of QEMU's card
}

// GuestSpec describes a machine to start.
type GuestSpec struct {
	Name     string // for messages
	Net      *netns.Net
	Firmware Firmware
	NICs     []NIC
	MemMB    int      // 0: 1024
	CPU      string   // "": qemu64, the cheapest to emulate; use Nehalem for images that need x86-64-v2
	Kernel   string   // Direct only
	Initrd   string   // Direct only
	Append   string   // Direct only
	Log      string   // path of the serial log; other files of the guest are in the same directory
	Reboots  bool     // false: the guest ends instead of rebooting (-no-reboot)
	Extra    []string // further arguments of QEMU
}

// Guest is a running machine.
type Guest struct {
	Serial

	spec GuestSpec
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended; err is set before
	err  error
}

// StartGuest starts a machine. The caller must call Kill, or Wait until it ends. It is killed when ctx ends.
func StartGuest(ctx context.Context, spec GuestSpec) (*Guest, error) {
	args, err := spec.args()
	if err != nil {
		return nil, fmt.Errorf("start guest %s: %w", spec.Name, err)
	}
	log, err := os.Create(spec.Log)
	if err != nil {
		return nil, fmt.Errorf("start guest %s: %w", spec.Name, err)
	}
	g := &Guest{spec: spec, done: make(chan struct{})}
	g.Serial.start(time.Now())
	g.cmd = spec.Net.Command(ctx, "qemu-system-x86_64", args...)
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	g.cmd.Stderr = g.cmd.Stdout
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go g.run(out, log, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start guest %s: %w", spec.Name, err)
	}
	return g, nil
}

// run starts the machine and returns when it has ended. It has a thread of its own, because the kernel sends Pdeathsig
// when the thread that started the process ends, and Net.Do ends threads.
func (g *Guest) run(out io.Reader, log *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := g.cmd.Start(); err != nil {
		started <- errors.Join(err, log.Close())
		return
	}
	started <- nil
	_, _ = io.Copy(io.MultiWriter(log, &g.Serial), out)
	g.err = errors.Join(g.cmd.Wait(), log.Close())
	g.Serial.end()
	close(g.done)
}

// Kill ends the guest as a power cut does, and waits until its process has ended.
func (g *Guest) Kill() {
	_ = g.cmd.Process.Kill()
	<-g.done
}

// Wait waits until the guest has ended itself, by powering off or, without Reboots, by rebooting.
func (g *Guest) Wait(ctx context.Context) error {
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of guest %s: %w; the end of its console:\n%s", g.spec.Name, ctx.Err(),
			g.Tail(15))
	}
}

// CPUTime returns the CPU time that a guest has used, 0 while it runs.
func (g *Guest) CPUTime() time.Duration {
	select {
	case <-g.done:
		return g.cmd.ProcessState.UserTime() + g.cmd.ProcessState.SystemTime()
	default:
		return 0
	}
}

func (s *GuestSpec) args() ([]string, error) {
	mem, cpu := s.MemMB, s.CPU
	if mem == 0 {
		mem = 1024
	}
	if cpu == "" {
		cpu = "qemu64"
	}
	// graphics=off sends the firmware's messages to the serial line.
	args := []string{
		"-accel", "tcg,thread=multi", "-M", "q35,graphics=off", "-cpu", cpu, "-smp", "1",
		"-m", strconv.Itoa(mem), "-nodefaults", "-display", "none", "-serial", "stdio",
		"-device", "virtio-rng-pci",
	}
	if !s.Reboots {
		args = append(args, "-no-reboot")
	}
	fw, err := s.firmwareArgs()
	if err != nil {
		return nil, err
	}
	args = append(args, fw...)
	for i, nic := range s.NICs {
		args = append(args, s.nicArgs(i, nic)...)
	}
	return append(args, s.Extra...), nil
}

func (s *GuestSpec) firmwareArgs() ([]string, error) {
	switch s.Firmware {
	case Direct:
		return []string{"-kernel", s.Kernel, "-initrd", s.Initrd, "-append", s.Append}, nil
	case BIOS:
		return []string{"-boot", "n"}, nil
	case UEFI:
		return s.ovmfArgs()
	case UEFIHTTP:
		args, err := s.ovmfArgs()
		for _, off := range []string{"IPv4PXESupport", "IPv6PXESupport", "IPv6Support"} {
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/"+off+",string=n")
		}
		return args, err
	}
	return nil, fmt.Errorf("unknown firmware %q", s.Firmware)
}

// ovmfArgs returns the arguments for OVMF. The guest gets its own copy of the variables, because OVMF writes the boot
// order into them.
func (s *GuestSpec) ovmfArgs() ([]string, error) {
	for _, f := range ovmf {
		vars, err := os.ReadFile(f.vars)
		if err != nil {
			continue
		}
		copied := strings.TrimSuffix(s.Log, filepath.Ext(s.Log)) + ".vars.fd"
		if err := os.WriteFile(copied, vars, 0o600); err != nil {
			return nil, err
		}
		return []string{
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + f.code,
			"-drive", "if=pflash,format=raw,unit=1,file=" + copied,
		}, nil
	}
	return nil, errors.New("OVMF is not installed")
}

func (s *GuestSpec) nicArgs(i int, nic NIC) []string {
	id, model := "n"+strconv.Itoa(i), nic.Model
	if model == "" {
		model = "virtio-net-pci"
	}
	dev := model + ",netdev=" + id + ",mac=" + nic.MAC
	if s.Firmware == Direct || s.Firmware == UEFIHTTP || nic.NoROM {
		// Otherwise the card's iPXE ROM boots instead of the loader or of OVMF's own HTTP client.
		dev += ",romfile="
	}
	if i == 0 && s.Firmware != Direct {
		dev += ",bootindex=1"
	}
	return []string{
		"-netdev", "tap,id=" + id + ",ifname=" + nic.Tap + ",script=no,downscript=no",
		"-device", dev,
	}
}
