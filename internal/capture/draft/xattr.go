package draft

import "strings"

// CapturedXattr tells which xattrs are captured. It leaves out what file systems show of their own state, and the bookkeeping of overlayfs and
// of our layers, which means something only where it stands.
func CapturedXattr(name string) bool {
	switch {
	case strings.HasPrefix(name, "trusted.overlay."), strings.HasPrefix(name, "trusted.dim."):
		return false
	case name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "security.") || strings.HasPrefix(name, "trusted.")
}
