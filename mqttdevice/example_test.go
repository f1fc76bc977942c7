package mqttdevice_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A device that can be rebooted from afar, and reports the time of it. The hub here is one in this
// process; with Azure IoT Hub, ConnectionString is all a device needs.
func Example() {
	h, conn, addr := exampleHub()
	defer h.Close()
	ctx := context.Background()

	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: conn,
		Addr:             addr,
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	c.HandleMethod("rebootDevice", func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
		reported := map[string]any{"rebootTime": time.Unix(1767225600, 0).UTC()}
		if _, err := c.PatchReported(ctx, reported); err != nil {
			return mqttdevice.Response{Status: 500, Payload: err.Error()}
		}
		return mqttdevice.Response{Status: 200, Payload: map[string]string{"Response": "rebooted"}}
	})
	if err := c.Connect(ctx); err != nil {
		fmt.Println(err)
		return
	}

	// What the service does.
	answer, err := h.InvokeMethod(ctx, hub.ID{Device: "dev-1"}, hub.MethodCall{Name: "rebootDevice", ResponseTimeout: 30 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.Status, string(answer.Payload))
	twin, err := c.Twin(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(twin.Reported))
	// Output:
	// 200 {"Response":"rebooted"}
	// {"rebootTime":"2026-01-01T00:00:00Z"}
}

// A program that follows its desired properties.
func ExampleClient_HandleDesired() {
	h, conn, addr := exampleHub()
	defer h.Close()
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: conn,
		Addr:             addr,
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	changes := make(chan mqttdevice.Desired)
	c.HandleDesired(func(_ context.Context, d mqttdevice.Desired) { changes <- d })

	change := hub.TwinChange{Desired: json.RawMessage(`{"interval":"5m"}`)}
	if _, err := h.PatchTwin(hub.ID{Device: "dev-1"}, change, hub.Match{Any: true}); err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Connect(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	d := <-changes
	fmt.Println("version", d.Version, string(d.Patch))
	// Output: version 2 {"interval":"5m"}
}

// A program that takes cloud-to-device messages. One that it cannot deal with comes again.
func ExampleClient_HandleMessage() {
	h, conn, addr := exampleHub()
	defer h.Close()
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: conn,
		Addr:             addr,
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	printed := make(chan bool)
	c.HandleMessage(func(_ context.Context, m mqttdevice.CloudToDeviceMessage) error {
		fmt.Println(m.ID, string(m.Payload), m.Properties)
		close(printed)
		return nil
	})
	if err := c.Connect(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	message := hub.Message{MessageID: "m-1", Body: []byte("hello"), Properties: []hub.Property{{Name: "urgent", Value: "true"}}}
	if err := h.SendMessage("dev-1", message); err != nil {
		fmt.Println(err)
		return
	}
	<-printed
	// Output: m-1 hello map[urgent:true]
}

// A program that keeps a status file, or a light, up to date.
func ExampleState() {
	h, conn, addr := exampleHub()
	defer h.Close()
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: conn,
		Addr:             addr,
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
		OnState: func(s mqttdevice.State) {
			switch s.Status {
			case mqttdevice.Connected:
				fmt.Printf("connected over %v at attempt %d\n", s.Transport, s.Attempts)
			case mqttdevice.Disconnected:
				fmt.Println("not connected:", s.Reason)
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.Connect(context.Background()); err != nil {
		fmt.Println(err)
	}
	c.Close()
	// Output:
	// connected over TCP at attempt 1
	// not connected: the client is closed
}

// A program that tells what it can mend from what will pass.
func ExampleClient_Connect() {
	h, conn, addr := exampleHub()
	defer h.Close()
	conn.SharedAccessKey = sas.NewKey()
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: conn,
		Addr:             addr,
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var certificate *tls.CertificateVerificationError
	switch err := c.Connect(ctx); {
	case errors.Is(err, mqttdevice.ErrTokenExpired):
		fmt.Println("get a new token")
	case errors.Is(err, mqttdevice.ErrUnauthorized):
		fmt.Println("the key is wrong, or the device is not registered")
	case errors.As(err, &certificate):
		fmt.Println("this is not the hub")
	case err != nil:
		fmt.Println("no connection within a minute:", err)
	}
	// Output: the key is wrong, or the device is not registered
}

// A program that sends telemetry: JSON that the hub can route by.
func ExampleClient_Send() {
	h, conn, addr := exampleHub()
	defer h.Close()
	c, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: conn,
		Addr:             addr,
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx := context.Background()
	if err := c.Connect(ctx); err != nil {
		fmt.Println(err)
		return
	}
	err = c.Send(ctx, mqttdevice.Message{
		Payload:         []byte(`{"temperature":21.5}`),
		ContentType:     "application/json",
		ContentEncoding: "utf-8",
		Properties:      map[string]string{"alert": "false"},
	})
	fmt.Println("the hub has it:", err == nil)
	// Output: the hub has it: true
}

// exampleHub starts a hub that knows the device dev-1.
func exampleHub() (h *node.Node, conn sas.ConnectionString, addr string) {
	h, err := node.New(node.Options{})
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go h.ServeMQTTS(listener)
	device, err := h.PutIdentity(hub.ID{Device: "dev-1"}, hub.IdentitySpec{}, hub.Match{})
	if err != nil {
		panic(err)
	}
	conn = sas.ConnectionString{HostName: "localhost", DeviceID: "dev-1", SharedAccessKey: device.Auth.SymmetricKey.Primary}
	return h, conn, listener.Addr().String()
}
