package replica

import (
	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/vfs"
)

// QuotaUse is what a replica's layer takes of its quota.
type QuotaUse struct {
	Bytes, BytesMax uint64 // blocks of files on the disk; max 0: no bound
	Files, FilesMax uint64 // objects but the root
}

// QuotaUse returns what the layer takes. What was set aside does not count.
func (r *Replica) QuotaUse() (QuotaUse, error) {
	if err := r.rlock(); err != nil {
		return QuotaUse{}, err
	}
	defer r.mu.RUnlock()
	return r.quotaUse(), nil
}

func (r *Replica) quotaUse() QuotaUse {
	return QuotaUse{
		Bytes: uint64(max(r.used.Load(), 0)), BytesMax: r.rules.QuotaBytes,
		Files: uint64(max(len(r.objects)-1, 0)), FilesMax: r.rules.QuotaFiles,
	}
}

const quotaBlock = 4096

func upward(n uint64) uint64 { return (n + quotaBlock - 1) &^ (quotaBlock - 1) }

// occupiedByLink is what a symbolic link with a target of that size counts with.
func occupiedByLink(size int) int64 {
	return layer.Occupied(&unix.Stat_t{Mode: unix.S_IFLNK, Size: int64(size)})
}

// count records that o takes n bytes now. r is locked, at least for reading.
func (r *Replica) count(o *object, n int64) {
	if !o.dead {
		r.used.Add(n - o.used.Swap(n))
	}
}

// recount records what o, with the status st, takes now. What was set aside takes nothing.
func (r *Replica) recount(o *object, st *unix.Stat_t) {
	switch {
	case len(o.names) > 0:
		r.count(o, layer.Occupied(st))
	case o.removed:
		r.set.lingering.resize(lingerKey{r.tree, o.id}, o, layer.Occupied(st))
	}
}

// room refuses n more bytes if the quota is exceeded by them, or the disk's reserve is reached. r is locked, at least
// for reading.
func (r *Replica) room(n int64) error {
	limit := r.rules.QuotaBytes
	if limit > 0 && n > 0 && uint64(max(r.used.Load()+r.reserved.Load(), 0))+uint64(n) > limit {
		return vfs.EDQUOT
	}
	if n <= 0 {
		return nil
	}
	return r.set.mayTake(n)
}

// roomForOne refuses one more object if the quota is used up, or the disk's reserve is reached.
func (r *Replica) roomForOne() error {
	if limit := r.rules.QuotaFiles; limit > 0 && uint64(len(r.objects)) > limit { // the root does not count
		return vfs.EDQUOT
	}
	return r.set.mayTake(quotaBlock)
}

// reserve keeps room for a write of n bytes at off to a file with the attributes was. The caller gives
// the result back to r.reserved. So concurrent writers keep to the quota too. A file that is no longer in the
// layer may grow as far as it could if it still counted.
func (r *Replica) reserve(w *target, was *vfs.Attr, off uint64, n int) (kept int64, err error) {
	o := w.obj
	r.mu.RLock()
	limit := r.rules.QuotaBytes
	dead, beside := o.dead, int64(0)
	if len(o.names) == 0 {
		beside = int64(min(was.Used, upward(was.Size))) // as layer.Occupied counts
	}
	r.mu.RUnlock()
	if limit == 0 || dead || n == 0 {
		return 0, nil
	}
	from, to := off&^(quotaBlock-1), upward(off+uint64(n))
	if dense := was.Used >= upward(was.Size); dense {
		from = max(from, min(upward(was.Size), to))
	}
	need := int64(to - from)
	for exact := false; ; exact = true {
		if need == 0 {
			return 0, nil
		}
		if r.reserved.Add(need)+r.used.Load()+beside <= int64(min(limit, 1<<62)) {
			return need, nil
		}
		r.reserved.Add(-need)
		if exact {
			return 0, vfs.EDQUOT
		}
		need = holes(w.file.FD, from, to)
	}
}

// holes returns how many bytes of a range of a file have no blocks yet.
func holes(fd int, from, to uint64) int64 {
	n := int64(to - from)
	for at := int64(from); at < int64(to); {
		data, err := unix.Seek(fd, at, unix.SEEK_DATA)
		if err != nil || data >= int64(to) {
			break // a hole to the end
		}
		end, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			break
		}
		end = min(int64(upward(uint64(end))), int64(to))
		n -= end - data&^(quotaBlock-1)
		at = end
	}
	return max(n, 0)
}

// statFS limits what the file system has to what the quota leaves.
func (u *QuotaUse) statFS(fs *vfs.StatFS) {
	if u.BytesMax > 0 {
		left := u.BytesMax - min(u.Bytes, u.BytesMax)
		fs.Bytes = min(fs.Bytes, u.BytesMax)
		fs.BytesFree, fs.BytesAvail = min(fs.BytesFree, left), min(fs.BytesAvail, left)
	}
	if u.FilesMax > 0 {
		left := u.FilesMax - min(u.Files, u.FilesMax)
		if fs.Files == 0 { // a file system without a bound
			fs.Files, fs.FilesFree, fs.FilesAvail = u.FilesMax, left, left
		}
		fs.Files = min(fs.Files, u.FilesMax)
		fs.FilesFree, fs.FilesAvail = min(fs.FilesFree, left), min(fs.FilesAvail, left)
	}
}
