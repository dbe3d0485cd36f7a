package image

// MaxPath is the length of the longest path that is captured, in bytes, without a leading slash. Linux opens a path of
// up to 4,095 bytes at once, and a longer one in parts.
const MaxPath = 16<<10 - 1

// MaxFile is the size of the largest file that is captured, in bytes: that of ext4. A larger one is mostly a hole,
// which takes hours to hash.
const MaxFile = 16 << 40

// JoinPath returns the path of name in the directory at dir.
func JoinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// ComparePaths compares two paths by walk order: component by component, a directory before the paths below it.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return int(a[i]) - int(b[i])
	}
	return len(a) - len(b)
}
