package timeline

import "dim/internal/boot"

// activity is what happens between an event and the next one, in words.
type activity string

const (
	fetchLoader  activity = "the fetch of the boot loader"
	startLoader  activity = "the start of the boot loader"
	fetchScript  activity = "the fetch of the boot script"
	awaitKernel  activity = "the wait for the kernel"
	fetchKernel  activity = "the fetch of the kernel"
	startKernel  activity = "the fetch of the initramfs and the start of the kernel"
	awaitLink    activity = "the wait for a link"
	awaitAddress activity = "the DHCP of dim-init"
	mountRoot    activity = "the mount of the root"
	startInit    activity = "the start of the node's init"
	firstCall    activity = "the time until the first call of the node's init"
	run          activity = "its run"
)

// activities are those that follow an event of a stage.
var activities = map[boot.Stage]activity{
	boot.StageDHCP:      fetchLoader,
	boot.StageLoader:    startLoader,
	boot.StageScript:    awaitKernel,
	boot.StageKernel:    fetchKernel,
	boot.StageInitramfs: awaitLink,
	boot.StageLink:      awaitAddress,
	boot.StageAddress:   mountRoot,
	boot.StageMount:     startInit,
	boot.StageHandover:  firstCall,
	boot.StageRunning:   run,
}

// activityOf returns what happens after an event.
func activityOf(e *boot.Event) activity {
	switch {
	case e.Stage == boot.StageDHCP && e.Detail == boot.DetailIPXE:
		return fetchScript
	case e.Stage == boot.StageInitramfs && e.Detail == boot.DetailFetched:
		return startKernel
	}
	return activities[e.Stage]
}

const (
	networkHint = "look at its cable, the speed and the error counters of its switch port, and the load of the server"
	switchHint  = "a switch port with spanning tree passes nothing for 30 s after the link is up: make it an edge port"
)

// hints say what to do about a slow activity.
var hints = map[activity]string{
	fetchLoader: networkHint, fetchScript: networkHint, fetchKernel: networkHint, mountRoot: networkHint,
	startInit: networkHint, firstCall: networkHint,
	startLoader:  "the loader waits for a link before it asks: " + switchHint,
	awaitKernel:  "the server's log says what it waited for, such as a version that was arriving",
	startKernel:  "its link may be slow, or the kernel waits for hardware: its console shows which",
	awaitLink:    "look at its cable and its switch port",
	awaitAddress: switchHint,
}
