package fileid

import (
	"testing"

	"dim/internal/image"
)

// The ids are part of the format of handles: nodes keep them across restarts and other servers compute the same.
func TestIdsNeverChange(t *testing.T) {
	content := image.Sum([]byte("content"))
	file := image.Entry{Type: image.Regular, Size: 7, Digest: content}
	linked := file
	linked.Link, linked.Nlink = "etc/motd", 2
	for name, c := range map[string]struct{ got, want ID }{
		"root":         {OfDir(""), 1},
		"directory":    {OfDir("etc"), 0x535df7d80953e03c},
		"dir entry":    {OfEntry("etc", &image.Entry{Type: image.Directory, Digest: content}), OfDir("etc")},
		"file":         {OfEntry("etc/motd", &file), 0x31554fd5ed56ef79},
		"2nd name":     {OfEntry("etc/other", &linked), OfEntry("etc/motd", &file)},
		"symlink":      {OfEntry("a", &image.Entry{Type: image.Symlink, Target: "b"}), 0x3844f2c754f77d8a},
		"char device":  {OfEntry("a", &image.Entry{Type: image.CharDevice, Major: 1, Minor: 3}), 0x1d9d135ca762c408},
		"block device": {OfEntry("a", &image.Entry{Type: image.BlockDevice, Major: 1, Minor: 3}), 0x232abee327c166fd},
		"FIFO":         {OfEntry("a", &image.Entry{Type: image.FIFO}), 0x628df2a47583fd1c},
		"node file":    {OfNodeFile("etc/motd", content), 0x6bd9e0b778324733},
	} {
		if c.got != c.want {
			t.Errorf("%s: the id is %#x, want %#x", name, uint64(c.got), uint64(c.want))
		}
		if c.got&InLayer != 0 {
			t.Errorf("%s: the id is one of a layer", name)
		}
	}
}
