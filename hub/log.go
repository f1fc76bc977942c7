package hub

// Keys of the hub's log lines.
const (
	logID            = "id"            // "device" or "device/module"
	logConfiguration = "configuration" // id of an automatic configuration
	logJob           = "job"           // id of a scheduled job
	logMethod        = "method"        // direct method name
	logRID           = "rid"           // request id of a twin operation or direct method
	logStatus        = "status"        // HTTP status, or the device's status of a direct method
	logReason        = "reason"        // why a connection was refused or closed
	logRemote        = "remote"        // address of the peer
	logTook          = "took"          // duration
	logRequest       = "request"       // id of a REST request, also in the x-ms-request-id header
	logTracking      = "tracking"      // the same as it stands in the tracking id of an error
	logVerb          = "verb"          // HTTP method
	logPath          = "path"          // path of a REST request
	logCaller        = "caller"        // policy or principal of a REST request
	logPacket        = "packet"        // type of an MQTT packet
	logTopic         = "topic"         // topic of a PUBLISH, cut when long
	logSize          = "size"          // bytes of a payload
	logAddr          = "addr"          // address the hub listens on
)
