// Package builtin names the built-in node files: files that are made for every node without a <file> in the cluster
// description. Package nodefile makes them; <builtin name="…" enabled="no"/> switches one off for an image.
//
// It must not know any other package of this project.
package builtin

// The names of the built-in node files, as they stand in the cluster description.
const (
	Hostname       = "hostname"
	Hosts          = "hosts"
	Fstab          = "fstab"
	Ifupdown       = "ifupdown"
	NetworkManager = "networkmanager"
	Networkd       = "networkd"
	MachineID      = "machine-id"
	ResolvConf     = "resolv.conf"
)

// Names returns the names of all built-in node files.
func Names() []string {
	return []string{Hostname, Hosts, Fstab, Ifupdown, NetworkManager, Networkd, MachineID, ResolvConf}
}
