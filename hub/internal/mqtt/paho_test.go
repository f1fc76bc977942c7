package mqtt_test

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

func pahoOptions(t *testing.T, cs sas.ConnectionString, url string, config *tls.Config) *mqtt.ClientOptions {
	p := wiretest.ConnectPacket(t, cs)
	return mqtt.NewClientOptions().AddBroker(url).SetTLSConfig(config).SetClientID(p.ClientIdentifier).SetUsername(p.Username).
		SetPassword(string(p.Password)).SetCleanSession(false).SetProtocolVersion(4).SetConnectRetry(false).SetAutoReconnect(false)
}

func wait(t *testing.T, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(wiretest.Patience) {
		t.Fatal("timed out")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// TestPahoClient has a whole MQTT client of somebody else's use the hub, over
// every transport.
func TestPahoClient(t *testing.T) {
	h := hubtest.New(t)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- h.ServeMQTT(plain) }()
	for _, url := range []string{"tls://" + h.MQTTSAddr, "wss://" + h.HTTPSAddr + "/$iothub/websocket", "tcp://" + plain.Addr().String()} {
		t.Run(url[:3], func(t *testing.T) {
			id := hub.ID{Device: "paho-" + url[:3]}
			client := mqtt.NewClient(pahoOptions(t, h.Device(id.Device), url, h.ClientTLS()))
			wait(t, client.Connect())
			defer client.Disconnect(100)
			answers := make(chan mqtt.Message, 10)
			wait(t, client.Subscribe("$iothub/twin/res/#", 1, func(_ mqtt.Client, m mqtt.Message) { answers <- m }))
			wait(t, client.Subscribe("$iothub/methods/POST/#", 1, func(c mqtt.Client, m mqtt.Message) {
				_, rid, _ := strings.Cut(m.Topic(), "?$rid=")
				go c.Publish("$iothub/methods/res/200/?$rid="+rid, 1, false, m.Payload())
			}))
			wait(t, client.Publish("$iothub/twin/GET/?$rid=1", 1, false, ""))
			select {
			case m := <-answers:
				if want := "$iothub/twin/res/200/?$rid=1"; m.Topic() != want {
					t.Errorf("topic %s, want %s", m.Topic(), want)
				}
			case <-time.After(wiretest.Patience):
				t.Fatal("no twin")
			}
			got := <-invoke(h, id, hub.MethodCall{Name: "echo", Payload: []byte(`{"a":[1,2]}`)})
			if got.err != nil || string(got.result.Payload) != `{"a":[1,2]}` {
				t.Errorf("echo: %s, %v", got.result.Payload, got.err)
			}
			wait(t, client.Publish("devices/"+id.Device+"/messages/events/a=b", 1, true, "telemetry"))
		})
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != node.ErrClosed {
		t.Errorf("ServeMQTT: %v, want %v", err, node.ErrClosed)
	}
	if err := h.ServeMQTT(plain); err != node.ErrClosed {
		t.Errorf("ServeMQTT on a closed hub: %v, want %v", err, node.ErrClosed)
	}
}
