package node_test

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

// A hub that stops tells whoever is connected over AMQP, however it is, and does
// not wait for those that only wait.
func TestShutdownEndsAMQPConnections(t *testing.T) {
	h := hubtest.New(t, hubtest.WithAMQPAddrs("", "127.0.0.1:0"))
	service := h.Policy("service")
	service.HostName = h.HostName
	claim := func(c *wiretest.AMQPClient) *wiretest.AMQPClient {
		c.Claim(service.Audience(), wiretest.Sign(t, service.Audience(), service.SharedAccessKeyName, service.SharedAccessKey, time.Now().Add(time.Hour)))
		return c
	}

	device := wiretest.DialAMQP(t, h, h.Device("d1"))
	device.Receiver("/devices/d1/messages/devicebound")
	overWebSocket := claim(wiretest.OpenAMQP(t, h, wiretest.DialAMQPWebSocket(t, h)))
	overWebSocket.Receiver("/messages/serviceBound/feedback")
	nc, err := net.Dial("tcp", h.AMQPAddr)
	if err != nil {
		t.Fatal(err)
	}
	reader := claim(wiretest.OpenAMQP(t, h, nc))
	reader.Receiver(node.EventHubName + "/ConsumerGroups/$Default/Partitions/0")
	unknown := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
	silent := wiretest.DialAMQPTCP(t, h)

	if err := h.Shutdown(wiretest.WithPatience(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	for name, c := range map[string]*wiretest.AMQPClient{"a device": device, "a service over WebSocket": overWebSocket, "a reader": reader, "one without claims": unknown} {
		select {
		case <-c.Conn.Done():
		case <-time.After(wiretest.Patience):
			t.Errorf("the connection of %s is still open", name)
			continue
		}
		var ended *amqp.ConnError
		if !errors.As(c.Conn.Err(), &ended) || ended.RemoteErr == nil || ended.RemoteErr.Condition != amqp.ErrCond("amqp:connection:forced") {
			t.Errorf("the connection of %s ended with %v, want amqp:connection:forced", name, c.Conn.Err())
		}
	}
	silent.SetReadDeadline(time.Now().Add(wiretest.Patience))
	if n, err := silent.Read(make([]byte, 1)); n > 0 || errors.Is(err, net.ErrClosed) {
		t.Errorf("one that was silent read %d bytes and %v, want its end", n, err)
	}
}

// What a service was told to be sent is there when the hub runs again, also what
// was on its way while it stopped.
func TestMessagesSentOverAMQPDuringShutdown(t *testing.T) {
	const devices, each = 8, 40
	dir := t.TempDir()
	accepted := make([]int, devices)
	t.Run("send and stop", func(t *testing.T) {
		h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
		for n := range devices {
			h.Device(fmt.Sprintf("d%d", n))
		}
		out := wiretest.DialAMQP(t, h, h.Policy("service")).Sender("/messages/devicebound")
		const enough = devices * each / 4
		begun, ended := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			for n := range devices * each {
				if n == enough {
					close(begun)
				}
				if out.Send(t.Context(), wiretest.AMQPMessage(fmt.Sprintf("/devices/d%d/messages/devicebound", n%devices), "m"), nil) != nil {
					return
				}
				accepted[n%devices]++
			}
		}()
		<-begun
		if err := h.Shutdown(wiretest.WithPatience(t)); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-ended
	})
	h := hubtest.New(t, hubtest.WithOptions(node.Options{Storage: node.Folder(dir)}))
	for n, want := range accepted {
		// One may be stored whose sender did not get to hear it.
		if got := h.ConnectionState(hub.ID{Device: fmt.Sprintf("d%d", n)}).PendingMessages; got < want || got > want+1 {
			t.Errorf("d%d has %d messages, %d were accepted", n, got, want)
		}
	}
}

func TestMetricsOfAMQPConnections(t *testing.T) {
	h := wiretest.StartREST(t, node.Options{})
	d1 := h.Device("d1")
	device := wiretest.DialAMQP(t, h.Hub, d1)
	device.Receiver("/devices/d1/messages/devicebound")
	overWebSocket := wiretest.OpenAMQP(t, h.Hub, wiretest.DialAMQPWebSocket(t, h.Hub))
	overWebSocket.Claim("localhost", h.Token("service"))
	stranger := wiretest.OpenAMQP(t, h.Hub, wiretest.DialAMQPTCP(t, h.Hub))
	if status := stranger.PutToken("localhost", h.Token("service")+"0"); status != 401 {
		t.Errorf("put-token of a broken token is answered with %d, want 401", status)
	}
	wantMetrics(t, h,
		`iotdm_hub_connected_devices 1`,
		`iotdm_hub_unauthenticated_connections{door="amqps"} 1`,
		`iotdm_hub_connections{door="amqps",state="opening"} 1`,
		`iotdm_hub_connections{door="amqps",state="open"} 1`,
		`iotdm_hub_connections{door="amqp-websocket",state="open"} 1`)

	wiretest.DialTLS(t, h.Hub).Connect(d1) // over MQTT, it takes over
	select {
	case <-device.Conn.Done():
	case <-time.After(wiretest.Patience):
		t.Error("the AMQP connection of a device that is connected over MQTT is still open")
	}
	overWebSocket.Conn.Close()
	stranger.Conn.Close()
	wantMetrics(t, h,
		`iotdm_hub_connected_devices 1`,
		`iotdm_hub_unauthenticated_connections{door="amqps"} 0`,
		`iotdm_hub_connections{door="amqps",state="opening"} 0`,
		`iotdm_hub_connections{door="amqps",state="open"} 0`,
		`iotdm_hub_connections{door="amqp-websocket",state="open"} 0`,
		`iotdm_hub_connections_closed_total{door="amqps",reason="taken_over"} 1`,
		`iotdm_hub_connections_closed_total{door="amqp-websocket",reason="closed"} 1`,
		`iotdm_hub_connections_closed_total{door="https",reason="websocket"} 1`,
		`iotdm_hub_amqp_outgoing_bytes 0`)
}

// A hub that stops does not wait for long for peers that do not answer, such as
// devices that have lost their network.
func TestShutdownWithAMQPPeersThatDoNotAnswer(t *testing.T) {
	h := hubtest.New(t)
	for range 3 {
		p := wiretest.NewAMQPPeer(t, wiretest.DialAMQPTCP(t, h))
		p.Open(h.HostName)
	}
	began := time.Now()
	if err := h.Shutdown(wiretest.WithPatience(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("Shutdown took %v", took)
	}
}
