package amqp

import "github.com/iotdm/iotdm/hub/internal/amqp/engine"

func (c *conn) attachFeedback(l *engine.Link) error          { panic("TODO door") }
func (c *conn) attachFileNotifications(l *engine.Link) error { panic("TODO door") }
