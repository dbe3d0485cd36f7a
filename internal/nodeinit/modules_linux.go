package nodeinit

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// LoadModule loads a module. It is no error if it is loaded already.
func (k *kernel) LoadModule(path, options string) error {
	f, err := os.Open(filepath.Join(k.moduleDir(), path))
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), options, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Modaliases returns the modaliases of the devices on all buses.
func (k *kernel) Modaliases() []string {
	files, _ := filepath.Glob("/sys/bus/*/devices/*/modalias")
	found := make([]string, 0, len(files))
	seen := make(map[string]bool)
	for _, f := range files {
		if a := readLine(f); a != "" && !seen[a] {
			seen[a] = true
			found = append(found, a)
		}
	}
	return found
}
