package amqp

import "github.com/iotdm/iotdm/hub/internal/amqp/engine"

// redirect refuses a link to /messages/events: it names the built-in endpoint.
func (c *conn) redirect(l *engine.Link) error { panic("TODO events") }
