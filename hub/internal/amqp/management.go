package amqp

import "github.com/iotdm/iotdm/hub/internal/amqp/engine"

func (c *conn) attachManagement(l *engine.Link) error { panic("TODO events") }
