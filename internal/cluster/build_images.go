package cluster

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"dim/internal/recordmerge"
)

// image makes an <image>.
func (b *builder) image(it *item) {
	im := &Image{DisabledBuiltins: map[string]bool{}, Durability: DurabilitySync}
	if v, ok := it.get("name"); ok {
		im.Name = ImageName(v.text)
		if slices.ContainsFunc(b.cluster.Images, func(other *Image) bool { return other.Name == im.Name }) {
			b.add(v.at, "a second image %q", v.text)
			return
		}
	}
	arch, _ := it.get("arch")
	master, _ := it.get("master")
	push, _ := it.get("push")
	im.Arch, im.Master, im.Push = arch.text, master.text, push.text == "on"
	if v, ok := it.get("durability"); ok {
		im.Durability = Durability(v.text)
	}
	im.Exclude = b.patterns(it.all("exclude"))
	im.Shared = b.patterns(it.all("shared"))
	im.Keep = b.patterns(it.all("keep"))
	im.Merge = b.merges(it.all("merge"))
	for _, m := range it.all("mount") {
		b.mount(im, m)
	}
	for _, f := range it.all("file") {
		b.nodeFile(im, f)
	}
	b.builtins(im, it.all("builtin"))
	for _, k := range it.all("kernel") {
		im.Kernel = kernel(k)
	}
	im.Quota, im.defaultQuota = b.quota(it, "image "+string(im.Name)), b.cluster.Quota
	for _, k := range it.all("saved") {
		im.SavedFor = b.days(k, "days")
		im.Snapshots = b.snapshots(k)
	}
	b.cluster.Images = append(b.cluster.Images, im)
}

// merges returns the files whose records are merged: the built-in ones, as the <merge> elements change them.
func (b *builder) merges(items []*item) map[string]recordmerge.Format {
	files, seen := recordmerge.Builtin(), map[string]bool{}
	for _, it := range items {
		v, ok := it.get("path")
		by, ok2 := it.get("by")
		if !ok || !ok2 {
			continue
		}
		p, clean := cleanPath(v.text)
		switch {
		case !clean:
			b.add(v.at, "path %q: must be a clean absolute path of a file", shorten(v.text))
		case seen[p]:
			b.add(v.at, "<merge path=%q> is given twice", v.text)
		case by.text == noMerge:
			delete(files, p)
		default:
			files[p] = recordmerge.Format(by.text)
		}
		seen[p] = true
	}
	return files
}

// cleanPath returns a path without its leading slash. ok is false if it is not absolute and clean.
func cleanPath(text string) (p string, ok bool) {
	p = strings.TrimPrefix(text, "/")
	return p, "/"+p == path.Clean(text) && p != "" && !strings.ContainsRune(p, 0)
}

// mount adds the path of a <mount>.
func (b *builder) mount(im *Image, it *item) {
	v, ok := it.get("path")
	if !ok {
		return
	}
	p, clean := cleanPath(v.text)
	switch {
	case !clean:
		b.add(v.at, "path %q: must be a clean absolute path", shorten(v.text))
	case slices.Contains(im.Mounts, p):
		b.add(v.at, "<mount path=%q> is given twice", v.text)
	default:
		im.Mounts = append(im.Mounts, p)
	}
}

// nodeFile adds a <file>.
func (b *builder) nodeFile(im *Image, it *item) {
	f := &File{Mode: 0o644}
	v, ok := it.get("path")
	if !ok {
		return
	}
	f.Path, ok = cleanPath(v.text)
	switch {
	case !ok:
		b.add(v.at, "path %q: must be a clean absolute path of a file", shorten(v.text))
		return
	case slices.ContainsFunc(im.Files, func(other *File) bool { return other.Path == f.Path }):
		b.add(v.at, "a second <file path=%q> in image %q", v.text, im.Name)
		return
	}
	for _, other := range im.Files {
		if strings.HasPrefix(f.Path, other.Path+"/") || strings.HasPrefix(other.Path, f.Path+"/") {
			b.add(v.at, "<file path=%q> and <file path=%q>: one would have to be a directory", v.text, "/"+other.Path)
			return
		}
	}
	if v, ok := it.get("mode"); ok {
		mode, _ := strconv.ParseUint(v.text, 8, 32)
		f.Mode = uint32(mode)
	}
	if v, ok := it.get("owner"); ok {
		f.UID, f.GID = b.owner(v)
	}
	if b.template(f, it) {
		im.Files = append(im.Files, f)
	}
}

// owner parses "UID:GID" or "UID".
func (b *builder) owner(v value) (uid, gid uint32) {
	u, g, both := strings.Cut(v.text, ":")
	if !both {
		g = "0"
	}
	un, uErr := strconv.ParseUint(u, 10, 32)
	gn, gErr := strconv.ParseUint(g, 10, 32)
	if uErr != nil || gErr != nil || un == 1<<32-1 || gn == 1<<32-1 {
		b.add(v.at, "owner=%q: must be numbers below 4294967295", v.text)
	}
	return uint32(un), uint32(gn)
}

// template sets the file's template, which is the element's text or the file that it names. It reports whether there
// is a valid one.
func (b *builder) template(f *File, it *item) bool {
	f.Template, f.Where, f.at = string(it.text), it.at.String(), it.textAt
	if it.has("template") {
		v, ok := it.get("template")
		if !ok {
			return false
		}
		if len(strings.TrimSpace(f.Template)) > 0 {
			b.add(it.at, "<file path=%q> has both a text and a template file", "/"+f.Path)
			return false
		}
		opened, ok := b.file(v)
		if !ok {
			return false
		}
		f.Template, f.Where, f.at = string(opened.data), v.text, location{opened, 0}
	}
	if f.at.file == nil {
		f.at = it.at // an empty element, which cannot contain a mistake
	}
	tmpl, err := parseTemplate(f.Template)
	if err != nil {
		b.templateProblem(f, err)
		return false
	}
	f.parsed = tmpl
	return true
}

// builtins records which built-in node files are switched off.
func (b *builder) builtins(im *Image, items []*item) {
	seen := map[string]bool{}
	for _, it := range items {
		name, ok := it.get("name")
		enabled, ok2 := it.get("enabled")
		if !ok || !ok2 {
			continue
		}
		if seen[name.text] {
			b.add(name.at, "a second <builtin name=%q> in image %q", name.text, im.Name)
		}
		seen[name.text] = true
		if enabled.text == "no" {
			im.DisabledBuiltins[name.text] = true
		}
	}
}

func kernel(it *item) Kernel {
	version, _ := it.get("version")
	arguments, _ := it.get("append")
	modules, _ := it.get("modules")
	return Kernel{Version: version.text, Append: arguments.text, Modules: strings.Fields(modules.text)}
}

// days returns the value of an attribute of kindDays, 0 if it is absent.
func (b *builder) days(it *item, name string) time.Duration {
	v, ok := it.get(name)
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(v.text)
	if n > 36500 {
		b.add(v.at, "%s=%q: must be 1 to 36500", name, v.text)
	}
	return time.Duration(n) * 24 * time.Hour
}
