package draft

import "strings"

// CapturedXattr reports whether an xattr is captured. It is not if file systems show their own state in it, nor if it
// belongs to overlayfs or to a layer of DIM, which have a meaning only in their place.
func CapturedXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "trusted.dim."):
		return false
	case name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "security.") ||
		strings.HasPrefix(name, "trusted.")
}
