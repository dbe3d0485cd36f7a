package control

// StormRequest asks a server to lend roots to a load test.
type StormRequest struct {
	Server  string `json:"server"`     // that lends the roots; "": the one that is asked
	Nodes   int    `json:"node_count"` // how many simulated nodes, each of which gets a root of its own
	Version string `json:"version"`    // NAME, NAME@NUMBER or NAME@TAG; "": what most of the server's nodes follow
	Seed    uint64 `json:"seed"`       // of the choice of the files that a boot reads
	DryRun  bool   `json:"dry_run"`    // nothing is prepared
}

// Storm is a load test as a server has prepared it, or in a dry run would prepare it.
type Storm struct {
	ID       string `json:"storm"` // "" in a dry run; it leads to the server
	Server   string `json:"server"`
	Remote   bool   `json:"is_remote"`      // it is another server than the one that was asked
	Ref      string `json:"reference"`      // the version that the simulated nodes boot
	Nodes    int    `json:"node_count"`     // how many roots there are
	Declared int    `json:"declared_nodes"` // how many nodes the server serves, as their first server
	Bytes    uint64 `json:"bytes_max"`      // disk space that the roots may take meanwhile

	Address string `json:"address"`       // of the server in the network of its nodes
	Paths   string `json:"export"`        // what to mount; the root of node 0 is there with 0 at its end
	As      string `json:"boots_as"`      // the node whose boot files are asked for; "": none boots
	MAC     string `json:"mac,omitempty"` // of simulated node 0; the others have those that follow. "": no DHCP

	Ports   StormPorts   `json:"ports"`
	Machine StormMachine `json:"machine"`
	Files   []StormFile  `json:"boot_files,omitempty"` // what a boot reads; not in a dry run
}

// StormPorts are the ports of a server's services.
type StormPorts struct {
	NFS  uint16 `json:"nfs_port"`
	HTTP uint16 `json:"http_port"`
	TFTP uint16 `json:"tftp_port"`
}

// StormMachine is what a server can do at most.
type StormMachine struct {
	CPUs int    `json:"cpus"`
	Link uint64 `json:"link_bits"` // bits a second of the card of Storm.Address; 0: the kernel does not tell
}

// StormFile is a file that a boot reads.
type StormFile struct {
	Path   string `json:"path"`
	Size   int64  `json:"bytes"`
	Digest string `json:"sha256"`
}

// StormUsage is what a server and its machine have used so far, since times of their own: only differences of two
// usages mean something.
type StormUsage struct {
	At          float64 `json:"at_seconds"`           // when it was read
	CPU         float64 `json:"cpu_seconds"`          // CPU time of the server process
	Machine     float64 `json:"machine_cpu_seconds"`  // CPU time of all processes and the kernel
	Sent        uint64  `json:"sent_bytes"`           // by all network interfaces
	Received    uint64  `json:"received_bytes"`       // by all network interfaces
	DiskRead    uint64  `json:"disk_read_bytes"`      // from the disk of the data directory
	DiskWritten uint64  `json:"disk_written_bytes"`   // to it
	DiskBusy    float64 `json:"disk_busy_seconds"`    // time during which it had something to do
	Memory      uint64  `json:"memory_bytes"`         // of the server process, now
	NoDisk      bool    `json:"disk_is_not_measured"` // the kernel counts nothing for that disk
}
