package amqp

import (
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// A message is what a client sent, taken apart: telemetry or cloud-to-device.
type message struct {
	properties  wire.Properties
	annotations wire.Map
	application []hub.Property // without those of the system, which are in system
	system      []hub.Property // iothub-ack and the like, as they came
	body        []byte
}

// readMessage reads a delivery of message format 0. The error is a *wire.Error
// to reject it with.
func readMessage(payload []byte) (message, error) { panic("TODO door") }
