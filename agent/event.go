package agent

// An Event is what a device has to tell the person who watches it, in the words that the tutorial's
// device prints. It is for [Options.OnEvent].
type Event string

// The events. A factory reset that ends tells nothing: it may well have ended the agent before.
const (
	RebootBegins   Event = "Rebooting device"
	RebootEnds     Event = "Device rebooted"
	RebootReported Event = "Device twins updated with latest rebootTime"
	ResetBegins    Event = "Resetting the device"
)
