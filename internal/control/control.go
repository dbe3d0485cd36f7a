// Package control is how a person or a script talks to the running daemon: a JSON API over HTTP on a unix socket in the
// data directory, the handler that serves it, and the client that the command line uses.
//
// # Concepts
//
// The daemon implements Backend; Serve puts it on a listener; Client calls it. Long calls (Capture, Diff, Mount) answer with
// one JSON object a line, and the last line is the result or the error. All keys are lower case and stay as they are; sizes
// are in bytes, times are RFC 3339. Every failure is an Error, which carries a code to branch on.
//
// # Who may call
//
// The socket is the superuser's: it is made with mode 0600, and each connection's peer credentials are checked
// besides. There is no other authentication on it.
//
// # Mounts
//
// The client opens /dev/fuse and mounts it in its own mount namespace, then hands the open device to the daemon, which
// serves it. So a mount appears where the person who asked for it is, although the daemon may live in another mount namespace, and
// the daemon, which has the locks and the indexes of the replicas, is the only one who touches them.
//
// This package must not know how anything is stored, served or booted: what it says comes from Backend.
package control

import "context"

// Backend is what the API asks of the daemon. Its methods may be called from any number of goroutines. Those that change
// something return when it is durable. Errors that are an *Error (also wrapped) keep their code; all others are reported as Internal.
type Backend interface {
	VersionsBackend
	WatchBackend
	NodeStates

	// Status tells all that `dim status` shows.
	Status(ctx context.Context) (Status, error)

	// Description returns the applied cluster description; NotFound when there is none yet.
	Description(ctx context.Context) (Description, error)
	// Apply makes d the applied description. When d.Revision is not 0 and is not the revision of the applied one, nothing is
	// changed and the error is a Conflict. A description with problems is Invalid, with all of them in Error.Details.
	Apply(ctx context.Context, d Description) (Description, error)

	// Images lists the images in order of name: those declared and those that have versions.
	Images(ctx context.Context) ([]Image, error)
	// Versions lists the versions of an image, oldest first.
	Versions(ctx context.Context, image string) ([]Version, error)
	// Version resolves a reference: NAME (the newest), NAME@NUMBER or NAME@TAG.
	Version(ctx context.Context, ref string) (Version, error)
	// Tag makes tag name the version ref; it moves the tag when it is there already.
	Tag(ctx context.Context, ref, tag string) (Version, error)
	// Capture makes a new version of an image from its master, or only tells what would be in it. It calls progress now and then, never
	// twice at once and not after it returned. It is cancelled with ctx. A second Capture of the same image at the same time is Busy.
	Capture(ctx context.Context, r CaptureRequest, progress func(Progress)) (Captured, error)

	// Rollout lets nodes follow a version, or only tells what that would do. It returns when the nodes of the first ring that are served
	// here and can change now have changed. Nodes that another rollout moves just now are a Conflict.
	Rollout(ctx context.Context, r RolloutRequest) (Rollout, error)
	// Rollouts lists the rollouts, the latest first, without their nodes.
	Rollouts(ctx context.Context) ([]Rollout, error)
	// RolloutStatus tells all about one; 0 is the latest.
	RolloutStatus(ctx context.Context, id int) (Rollout, error)
	// ChangeRollout pauses, resumes, undoes or stops one. When somebody has moved its nodes since, undoing it is a Conflict.
	ChangeRollout(ctx context.Context, id int, change RolloutChange) (Rollout, error)

	// Nodes lists the nodes of a node set ("" is all) in their declared order, without the details.
	Nodes(ctx context.Context, set string) ([]Node, error)
	// Node tells everything about one node.
	Node(ctx context.Context, name string) (Node, error)
	// Machines lists the machines that asked for a boot and that the description does not know.
	Machines(ctx context.Context) ([]Machine, error)

	// Mount serves what m names on fd, an open /dev/fuse that the caller has mounted at m.Dir. It returns when it serves,
	// which it does until that is unmounted or the daemon ends; then it closes done. When it succeeds it has taken over fd. (fuse.Serve)
	Mount(ctx context.Context, m Mount, fd int) (done <-chan struct{}, err error)
	// Mounts lists what is served that way.
	Mounts(ctx context.Context) ([]Mount, error)
}
