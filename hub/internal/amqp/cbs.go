package amqp

import "github.com/iotdm/iotdm/hub/internal/amqp/engine"

func (c *conn) attachCBS(l *engine.Link) error { panic("TODO door") }
