// Package words holds what the rooms of a hub say alike: the keys of its log
// lines, the ids of requests, and how a peer's text is shown.
package words

import "strings"

// Keys of the hub's log lines.
const (
	LogID            = "id"            // "device" or "device/module"
	LogConfiguration = "configuration" // id of an automatic configuration
	LogRegistration  = "registration"  // id with which a device registers with the provisioning service
	LogEnrollment    = "enrollment"    // id of an enrollment, or of an enrollment group
	LogJob           = "job"           // id of a scheduled job
	LogMethod        = "method"        // direct method name
	LogRID           = "rid"           // request id of a twin operation or direct method
	LogStatus        = "status"        // HTTP status, or the device's status of a direct method
	LogReason        = "reason"        // why a connection was refused or closed
	LogRemote        = "remote"        // address of the peer
	LogTook          = "took"          // duration
	LogRequest       = "request"       // id of a REST request, also in the x-ms-request-id header
	LogTracking      = "tracking"      // the same as it stands in the tracking id of an error
	LogVerb          = "verb"          // HTTP method
	LogPath          = "path"          // path of a REST request
	LogCaller        = "caller"        // policy or principal of a REST request
	LogPacket        = "packet"        // type of an MQTT packet
	LogTopic         = "topic"         // topic of a PUBLISH, cut when long
	LogSize          = "size"          // bytes of a payload
	LogLeftOut       = "left_out"      // lines before this one that were too many
	LogAddr          = "addr"          // address the hub listens on
)

// Clip keeps what a peer sent from filling an error text or the log.
func Clip(s string) string {
	const most = 140
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// StatusClientGone stands in the log and the metrics for a caller that did not
// wait.
const StatusClientGone = 499
