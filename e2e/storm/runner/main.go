// Runner is a program that is replaced while it runs. It maps a library that is replaced too, and reads its own
// code and the library until it gets a signal. Its exit code is 0 if every read had the right content.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"dim/e2e/storm"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(3)
	}
}

func run(library string) error {
	end := make(chan os.Signal, 1)
	signal.Notify(end, unix.SIGTERM)
	f, err := os.Open(library)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	fmt.Println("runs")
	for {
		if err := storm.CheckLibrary(data); err != nil {
			return err
		}
		regexp.MustCompile(`v0*([0-9]+) `).FindSubmatch(data) // other pages of code
		select {
		case <-end:
			return storm.CheckLibrary(data)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
