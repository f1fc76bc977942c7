package hub

// Keys of the hub's log lines.
const (
	logID      = "id"      // "device" or "device/module"
	logMethod  = "method"  // direct method name
	logRID     = "rid"     // request id of a twin operation or direct method
	logStatus  = "status"  // HTTP status, or the device's status of a direct method
	logReason  = "reason"  // why a connection was refused or closed
	logRemote  = "remote"  // address of the peer
	logTook    = "took"    // duration
	logRequest = "request" // tracking id, also in the x-ms-request-id header
	logAddr    = "addr"    // address the hub listens on
)
