package amqp

import "github.com/iotdm/iotdm/hub/internal/amqp/engine"

// attachPartition attaches a reader of events.
func (c *conn) attachPartition(l *engine.Link, a address) error { panic("TODO events") }
