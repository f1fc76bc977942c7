// Package disk says what a hub's state looks like in its store: the map of all
// keys, and the form of the records. What a data folder holds outlives every
// version of this code, so that a change here has to read the old form too; a
// folder of an older hub is under testdata of package node.
package disk

import "encoding/binary"

// The prefixes of the store's keys, with the form of the records behind them.
// An id holds neither "/" nor a byte above "~", so that one identity's key is
// never a prefix of another's and "/" separates them.
const (
	Device     = "device/"      // + device: identity (hub, identityFormat)
	Module     = "module/"      // + device/module: identity
	DeviceTwin = "twin/device/" // + device: twin (hub, twinFormat)
	ModuleTwin = "twin/module/" // + device/module: twin

	UpdatedDevice = "updated/device/" // + minute, device: nothing; an index
	UpdatedModule = "updated/module/" // + minute, device/module: nothing
	UpdatedIndex  = "updated/index"   // nothing; it is there if the index is complete

	Activity = "activity/" // + device or device/module: when it was last seen, and why it went (hub)
	Refusal  = "refusal/"  // + device or device/module: the last connection that was refused (hub, incidentFormat)
	Session  = "session/"  // + device or device/module: an MQTT session (internal/mqtt, sessionFormat)

	Link = "link/" // + device or device/module: which node has its connection (hub, presenceFormat)

	Queue    = "queue/"    // + device: what waits; absent when nothing does (hub, queueFormat)
	Message  = "message/"  // + device/, number: a cloud-to-device message (hub, messageFormat)
	Sequence = "sequence/" // + device: the number of its last message
	Feedback = "feedback/" // + time, number: feedback (hub, JSON)

	Enrollment      = "enrollment/"      // + id in lower case: an individual enrollment (provisioning, JSON)
	EnrollmentGroup = "enrollmentgroup/" // + id in lower case: an enrollment group (provisioning, JSON)
	Registration    = "registration/"    // + id in lower case: a registration (provisioning, JSON)
	Registering     = "registering/"     // + id in lower case: the epoch of the node that registers it, in a cluster; absent when none does
	Registered      = "registered/"      // + group/registration, in lower case: nothing; an index of those of groups

	CA = "ca/" // + name: a CA certificate (hub, JSON)

	Readers = "reader/" // + consumer group in lower case/partition: who reads it on which node, in a cluster (hub, JSON)

	Job    = "job/"       // + job: a scheduled job (jobs, JSON)
	JobRow = "jobdevice/" // + job/device: the row of devices.jobs, as a query returns it (jobs, JSON)

	Configuration   = "configuration/"   // + id: an automatic configuration (configurations, JSON)
	ClusterPolicies = "cluster/policies" // the shared access policies of a hub of several nodes (node, JSON)
	ClusterCA       = "cluster/ca"       // its CA, certificate and key (node, PEM)
	ClusterTickets  = "cluster/tickets"  // its keys of TLS session tickets (node, JSON)

	Configured = "configured/" // + device or device/module: the paths that configurations have set in a twin (configurations, JSON)
)

// Of returns the key of an identity among the keys with a prefix: of a device
// if module is empty.
func Of(prefix, device, module string) []byte {
	b := make([]byte, 0, len(prefix)+len(device)+1+len(module))
	b = append(append(b, prefix...), device...)
	if module != "" {
		b = append(append(b, '/'), module...)
	}
	return b
}

// Below returns the prefix of what belongs to one owner: a device's modules or
// messages, a job's rows.
func Below(prefix, owner string) []byte { return []byte(prefix + owner + "/") }

// MessageKey returns the key of a message of a device.
func MessageKey(device string, number uint64) []byte {
	return binary.BigEndian.AppendUint64(Below(Message, device), number)
}

// FeedbackKey returns the key of feedback that came at a time, in Unix
// nanoseconds. The number tells those of one time apart.
func FeedbackKey(at int64, number uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte(Feedback), uint64(at))
	return binary.BigEndian.AppendUint32(b, number)
}

// UpdatedKey returns the place in an index of who was written in a minute.
func UpdatedKey(prefix string, minute uint32, name string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte(prefix), minute), name...)
}
