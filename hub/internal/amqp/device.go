package amqp

import (
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
)

// devices are the identities of a connection that have links, each a hub.Link.
type devices struct{}

// renewed is called when the peer has claimed an identity again: if it is one
// of the connection, it takes the new grant.
func (c *conn) renewed(id hub.ID) { panic("TODO device") }

// gone is called when the connection has ended.
func (d *devices) gone() { panic("TODO device") }

// attachDevice attaches a link of a device or module.
func (c *conn) attachDevice(l *engine.Link, a address) error { panic("TODO device") }
