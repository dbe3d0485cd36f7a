package nodeinit

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// unitWatch tells when systemd reads its units. Before it does, at boot and at each daemon-reload, it makes the
// directories of its generators anew in /run/systemd (systemd.generator(7), "output directories"). Nothing else does.
// Without systemd nothing is told.
type unitWatch struct {
	fd    int // of inotify; -1: there is none
	found bool
}

func newUnitWatch() unitWatch {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		fd = -1
	}
	return unitWatch{fd: fd}
}

// find begins to watch, if the directory exists by now. The working directory must be /proc.
func (w *unitWatch) find() {
	if w.found || w.fd < 0 {
		return
	}
	_, err := unix.InotifyAddWatch(w.fd, "1/root/run/systemd", unix.IN_CREATE|unix.IN_ONLYDIR)
	w.found = err == nil
}

// reads reports whether systemd has begun to read its units since the last call.
func (w *unitWatch) reads(scratch []byte) bool {
	began := false
	for w.fd >= 0 {
		n, err := unix.Read(w.fd, scratch)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			break
		}
		began = generatorsRan(scratch[:n]) || began
	}
	return began
}

// generatorsRan reports whether one of some events of inotify(7) is of a directory of generators.
func generatorsRan(events []byte) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask, length := binary.NativeEndian.Uint32(events[4:]), binary.NativeEndian.Uint32(events[12:])
		events = events[unix.SizeofInotifyEvent:]
		if uint64(length) > uint64(len(events)) {
			break
		}
		name := strings.TrimRight(string(events[:length]), "\x00")
		events = events[length:]
		switch name {
		case "generator", "generator.early", "generator.late":
			if mask&unix.IN_ISDIR != 0 {
				return true
			}
		}
	}
	return false
}
