package control

import "context"

// Backend is everything that the API asks of the daemon. Its methods may be called from any number of goroutines. A
// method that changes something returns when the change is durable. An error that is an *Error, also a wrapped one,
// keeps its code; every other error is reported as Internal.
type Backend interface {
	StatusBackend
	ServerBackend
	DescriptionBackend
	ImageBackend
	VersionBackend
	StoreBackend
	DiffBackend
	RolloutBackend
	NodeBackend
	SavedBackend
	SnapshotBackend
	MountBackend
	StormBackend
	BackupBackend
}

// StatusBackend reports on the whole daemon.
type StatusBackend interface {
	// Status returns everything that `dim status` shows.
	Status(ctx context.Context) (Status, error)
}

// ServerBackend holds which machines are servers of the cluster.
type ServerBackend interface {
	// Servers lists the servers of the description.
	Servers(ctx context.Context) ([]Server, error)
	// ChangeServer removes, drains or undrains a server, or accepts its disk, or only reports what that would do. A
	// server that has not joined is NotFound.
	ChangeServer(ctx context.Context, name string, change ServerChange) (ServerChanged, error)
	// NewToken makes a token with which one machine can join. Only a head with the authority can.
	NewToken(ctx context.Context, r TokenRequest) (Token, error)
}

// DescriptionBackend holds the cluster description.
type DescriptionBackend interface {
	// Description returns the cluster description with a revision, 0 for the applied one; NotFound when there is none,
	// or when it is not kept.
	Description(ctx context.Context, revision int64) (Description, error)
	// Descriptions lists the descriptions that were applied, the latest first.
	Descriptions(ctx context.Context) ([]AppliedDescription, error)
	// Apply makes a description the applied one, or only reports what that would change. It is a Conflict, and nothing
	// is changed, when the applied description has another revision than r demands, was applied in the meantime, or
	// has another cluster's name and r does not say Force. It is Held when a person must consent (ApplyResult.Asks). A
	// description with problems is Invalid, with all of them in Error.Details.
	Apply(ctx context.Context, r ApplyRequest) (ApplyResult, error)
	// Learn binds machines to nodes, or only reports what it would bind. It is a new entry in the history of the
	// description. It is a Conflict, and nothing is changed, when a machine is a node already, or is not on the network
	// of the node.
	Learn(ctx context.Context, r LearnRequest) (LearnResult, error)
}

// ImageBackend lists images and makes versions of them.
type ImageBackend interface {
	// Images lists the images in order of name: those that are declared and those that have versions.
	Images(ctx context.Context) ([]Image, error)
	// Capture makes a new version of an image from its master, or only reports what would be in it. It calls progress
	// at intervals, never concurrently and never after it has returned. Cancelling ctx cancels the capture. A second
	// Capture of the same image at the same time is Busy.
	Capture(ctx context.Context, r CaptureRequest, progress func(Progress)) (CaptureResult, error)
	// Watch declares whether the master of an image is watched, or only reports how it would be. The declaration holds
	// until it is changed, also across restarts.
	Watch(ctx context.Context, r WatchRequest) (Watch, error)
}

// VersionBackend looks up, tags and removes versions.
type VersionBackend interface {
	// Versions lists the versions of an image, oldest first.
	Versions(ctx context.Context, image string) ([]Version, error)
	// Version resolves a reference: NAME (the newest), NAME@NUMBER or NAME@TAG.
	Version(ctx context.Context, ref string) (Version, error)
	// Installed lists the packages of the version that a reference names.
	Installed(ctx context.Context, ref string) (Installed, error)
	// Tag makes tag name the version ref. A tag that exists already is moved.
	Tag(ctx context.Context, ref, tag string) (Version, error)
	// Untag removes the tag that ref, NAME@TAG, names.
	Untag(ctx context.Context, ref string) (Version, error)
	// RemoveVersion removes a version, NAME@NUMBER, and the objects that only it refers to. A version that is in use
	// is a Conflict.
	RemoveVersion(ctx context.Context, ref string, r RemoveRequest) (PruneResult, error)
}

// StoreBackend maintains the daemon's store.
type StoreBackend interface {
	// Prune removes the versions that nothing needs, and the objects that no version refers to. While objects are being
	// added it removes the versions only, and is Busy.
	Prune(ctx context.Context, r PruneRequest) (PruneResult, error)
	// Verify reads every object that a version refers to, or every object of the store when ref is "". It reports those
	// whose content does not have their digest.
	Verify(ctx context.Context, ref string, progress func(Progress)) (VerifyResult, error)
	// VerifyAll verifies a version on every server that has it or should have it, and compares what the nodes that
	// follow it show. Only a head does that.
	VerifyAll(ctx context.Context, ref string, progress func(Progress)) (VerifyAllResult, error)
}

// DiffBackend compares versions and nodes.
type DiffBackend interface {
	// Diff yields the differences between two versions, in order of path, until yield returns false. It returns a
	// summary.
	Diff(ctx context.Context, from, to string, yield func(Change) bool) (Comparison, error)
	// NodeChanges yields the differences between a node and its version, in order of path, until yield returns false.
	NodeChanges(ctx context.Context, node string, yield func(Change) bool) error
	// NodeDiff reports why two nodes show different roots.
	NodeDiff(ctx context.Context, a, b string) (NodeDiff, error)
	// NodeSide returns what a node of this server has besides its version.
	NodeSide(ctx context.Context, node string) (NodeSide, error)
	// NodeContents returns the digests of files that a node of this server has, in the order of the request. "" stands
	// for what is not a regular file, cannot be read, or is too large to be compared.
	NodeContents(ctx context.Context, node string, r ContentsRequest) ([]string, error)
}

// RolloutBackend moves nodes to other versions.
type RolloutBackend interface {
	// Rollout lets nodes follow a version, or only reports what that would do. It returns when the nodes of the first
	// ring have changed, as far as this daemon serves them and they can change now. Nodes that another rollout is
	// moving are a Conflict.
	Rollout(ctx context.Context, r RolloutRequest) (Rollout, error)
	// Rollouts lists the rollouts, the latest first, without their nodes.
	Rollouts(ctx context.Context) ([]Rollout, error)
	// RolloutStatus returns one rollout with its nodes; 0 is the latest.
	RolloutStatus(ctx context.Context, id int) (Rollout, error)
	// PreviewOwn returns what moves would set aside on nodes that this server serves. A version that it does not have
	// yet is NotFound.
	PreviewOwn(ctx context.Context, r PreviewRequest) ([]OwnChanges, error)
	// ChangeRollout pauses, resumes, undoes or stops a rollout. To undo it is a Conflict when its nodes have been moved
	// since.
	ChangeRollout(ctx context.Context, id int, change RolloutChange) (Rollout, error)
	// ConfirmNodes records that what nodes do not report was done on them since their last rollouts, or only reports
	// what that would be.
	ConfirmNodes(ctx context.Context, r ConfirmRequest) ([]ConfirmedNode, error)
}

// NodeBackend reports on nodes.
type NodeBackend interface {
	// Nodes lists the nodes of a node set ("" is all) in their declared order, without details.
	Nodes(ctx context.Context, set string) ([]Node, error)
	// Node returns one node with its details.
	Node(ctx context.Context, name string) (Node, error)
	// NodeBoots returns the last boots of a node of this server, compared with those of its neighbors.
	NodeBoots(ctx context.Context, node string) (NodeBoots, error)
	// NodeFiles returns the files that are rendered for a node of this server, or the one at a path ("" is all). It is
	// NotFound when there is none at the path.
	NodeFiles(ctx context.Context, node, path string) ([]NodeFile, error)
	// Machines lists the machines that asked for a boot and are not in the description.
	Machines(ctx context.Context) ([]Machine, error)
	// HostKeys lists the public keys of the ssh servers of all nodes, as their roots have them: from the version, or
	// what the node has written. A head asks all servers; one that does not answer is a HostKey with a Problem.
	HostKeys(ctx context.Context) ([]HostKey, error)
	// Check compares what is on the disk of each node of a set ("" is all) with what the format demands and with what
	// is served.
	Check(ctx context.Context, set string) ([]CheckResult, error)
}

// SavedBackend sets aside the changes of nodes, and brings them back.
type SavedBackend interface {
	// Saved lists the entries of a node that were set aside, the latest first.
	Saved(ctx context.Context, node string) ([]SavedEntry, error)
	// Restore brings set-aside entries of a node back. When no entry fits the request it is NotFound.
	Restore(ctx context.Context, node string, r RestoreRequest) ([]RestoredEntry, error)
	// Reset sets aside the changes of a node. A node that may be running is a Conflict, unless the request says
	// Force or names paths.
	Reset(ctx context.Context, node string, r ResetRequest) ([]SavedEntry, error)
	// Forget removes set-aside entries for good.
	Forget(ctx context.Context, node string, r ForgetRequest) ([]SavedEntry, error)
	// RemoveLayers removes all files of nodes that the description no longer has, on all servers. A declared node is a
	// Conflict. A server that does not answer is a RemovedLayer with a Problem and no node.
	RemoveLayers(ctx context.Context, r RemoveLayersRequest) ([]RemovedLayer, error)
	// Accept serves a node with files that were in doubt since the journal of switches was damaged. A node whose files
	// are not in doubt is a Conflict.
	Accept(ctx context.Context, node string, r AcceptRequest) (AcceptedLayer, error)
}

// SnapshotBackend lists and restores snapshots of the layers of nodes.
type SnapshotBackend interface {
	// Snapshots lists the snapshots of the layers of a set of nodes ("" is all), by node, the latest of each image
	// first.
	Snapshots(ctx context.Context, set string) ([]Snapshot, error)
	// RestoreSnapshot makes the layer of a node what it was at a snapshot. A snapshot that does not exist is
	// NotFound. A node that may be running is a Conflict, unless the request says Force.
	RestoreSnapshot(ctx context.Context, node string, r RestoreSnapshotRequest) (RestoredSnapshot, error)
}

// MountBackend shows trees as local directories.
type MountBackend interface {
	// Mount serves what m names on fd, an open /dev/fuse that the caller has mounted at m.Dir. It returns when it
	// serves. It closes done when the directory is unmounted or the daemon ends. When Mount succeeds it owns fd; when
	// it fails the caller still does.
	Mount(ctx context.Context, m Mount, fd int) (done <-chan struct{}, err error)
	// Mounts lists the mounts.
	Mounts(ctx context.Context) ([]Mount, error)
}

// StormBackend lends roots to load tests.
type StormBackend interface {
	// BeginStorm makes roots for simulated nodes, which are removed when the load test ends. A second load test at the
	// same time is Busy. One that is not heard of for half a minute (StormUsage) ends by itself.
	BeginStorm(ctx context.Context, r StormRequest) (Storm, error)
	// StormUsage returns what the server and its machine have used so far. NotFound: the load test has ended.
	StormUsage(ctx context.Context, id string) (StormUsage, error)
	// EndStorm removes the roots of a load test, and returns what was used until just before that.
	EndStorm(ctx context.Context, id string) (StormUsage, error)
}

// BackupBackend lets a backup be made while the daemon runs.
type BackupBackend interface {
	// BackupState brings the copy of the declared state on disk up to date, and returns what a backup needs besides it.
	BackupState(ctx context.Context) (BackupState, error)
	// Stage makes a copy of what a replica has on disk, calls staged with it, and removes the copy when ctx ends.
	Stage(ctx context.Context, r StageRequest, staged func(Staged)) error
}
