package amqp

import (
	"fmt"
	"net"
	"strconv"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// amqpsPort is where the built-in endpoint is for who came over WebSocket.
const amqpsPort = 5671

// redirect refuses a link to /messages/events: it names the built-in endpoint,
// which is this hub, under the name by which the peer has reached it. The final
// slash of the address is what clients cut the name of the event hub out by.
func (c *conn) redirect(l *engine.Link) error {
	if _, err := c.caller(hub.ReadEvents, "/messages/events"); err != nil {
		return err
	}
	scheme, port := "amqps", amqpsPort
	if a, ok := c.NetConn().LocalAddr().(*net.TCPAddr); ok && c.over != c.door.metrics.webSocket {
		port = a.Port
	}
	if c.over == c.door.metrics.plain {
		scheme = "amqp"
	}
	e := refuse(condRedirect, "events are read from the event hub %s", EventHubName)
	e.Info = wire.Fields{
		{Key: wire.Symbol("hostname"), Value: c.host},
		{Key: wire.Symbol("network-host"), Value: c.host},
		{Key: wire.Symbol("port"), Value: int32(port)},
		{Key: wire.Symbol("address"), Value: fmt.Sprintf("%s://%s/%s/", scheme, net.JoinHostPort(c.host, strconv.Itoa(port)), EventHubName)},
	}
	return e
}

// sources are those of the events that readers get.
func (d *Door) sources() []hub.EventSource {
	if len(d.opt.EventSources) == 0 {
		return []hub.EventSource{hub.SourceTelemetry}
	}
	return d.opt.EventSources
}
