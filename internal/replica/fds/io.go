package fds

import (
	"golang.org/x/sys/unix"

	"dim/internal/sysfile"
)

// Sync returns when an fsync that began after the call of Sync has ended. Concurrent calls for the same file
// share one.
func (f *File) Sync() error {
	before := f.Failures()
	err := f.flush.Do(func() error { return f.failed(sysfile.Retry(func() error { return unix.Fsync(f.FD) })) })
	return f.since(before, err)
}

// WriteOut writes the content out and waits until the device has it. That is not durable yet: the device may
// have it in a volatile cache, and its location may be in memory.
func (f *File) WriteOut() error {
	before := f.Failures()
	// All three together are what fsync does with content since Linux 5.3 (fs/sync.c: SYNC_FILE_RANGE_WRITE_AND_WAIT).
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := f.failed(sysfile.Retry(func() error { return unix.SyncFileRange(f.FD, 0, 0, all) }))
	return f.since(before, err)
}

// Failures counts the calls that could not bring the content to disk. The kernel reports lost content once, to
// one caller, and takes it for written from then on. So a caller that writes and then syncs must compare the
// count before and after.
func (f *File) Failures() uint64 { return f.failures.Load() }

func (f *File) failed(err error) error {
	if err != nil {
		f.failures.Add(1)
	}
	return err
}

// since turns success into an error if another sync of the same file failed meanwhile.
func (f *File) since(before uint64, err error) error {
	if err == nil && f.Failures() != before {
		return unix.EIO
	}
	return err
}

// ReadAt is pread(2).
func (f *File) ReadAt(p []byte, off int64) (int, error) { return unix.Pread(f.FD, p, off) }
