package amqp

import "github.com/iotdm/iotdm/hub"

// A node is what an address names.
type node int

// The nodes, with what their peer is.
const (
	nodeUnknown           node = iota
	nodeCBS                    // $cbs, anybody
	nodeManagement             // $management, a reader of events
	nodeMessages               // /messages/devicebound, a service that sends
	nodeFeedback               // /messages/servicebound/feedback, a service that receives
	nodeFileNotifications      // /messages/servicebound/filenotifications, a service that receives
	nodeEventsRedirect         // /messages/events and below, a service that is sent to the built-in endpoint
	nodePartition              // {event hub}/ConsumerGroups/{group}/Partitions/{partition}, a reader
	nodeDeviceEvents           // of a device or module: .../messages/events, it sends (a module also receives inputs)
	nodeDeviceMessages         // .../messages/devicebound, it receives
	nodeDeviceMethods          // .../methods/devicebound, both
	nodeDeviceTwin             // .../twin, both
)

// An address is a link's, taken apart.
type address struct {
	node      node
	id        hub.ID // of a device's or module's node
	hub       string // the event hub's name, as it was written
	group     string
	partition string
}

// parseAddress reads an address of any of the shapes that clients send: with or
// without scheme and host, with or without a leading slash, with words in any
// case and ids percent-encoded or not.
func parseAddress(text string) address { panic("TODO door") }
