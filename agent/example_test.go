package agent_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// The device of the tutorial, with one more direct method that the program answers itself. The hub is one
// in this process; with Azure IoT Hub, ConnectionString is all that Device needs.
func Example() {
	h, device := exampleHub()
	defer h.Close()

	a, err := agent.New(agent.Options{
		Device:         device,
		RebootDuration: time.Millisecond,
		OnEvent:        func(e agent.Event) { fmt.Println("device:", e) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	a.Client().HandleMethod("pressure", func(context.Context, mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Status: 200, Payload: 1.5}
	})
	if err := a.Connect(context.Background()); err != nil {
		fmt.Println(err)
		return
	}

	// What a back end does.
	for _, method := range []string{"rebootDevice", "pressure"} {
		answer, err := h.InvokeMethod(context.Background(), hub.ID{Device: "pump-7"},
			hub.MethodCall{Name: method, ResponseTimeout: 30 * time.Second})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(method, "is answered", answer.Status, string(answer.Payload))
	}
	// Output:
	// device: Rebooting device
	// device: Device rebooted
	// device: Device twins updated with latest rebootTime
	// rebootDevice is answered 200 {"Response":"This is the response from the device"}
	// pressure is answered 200 1.5
}

// A program that keeps the agent's log as JSON, to look for records by their attributes.
func ExampleOptions_logger() {
	h, device := exampleHub()
	defer h.Close()

	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	a, err := agent.New(agent.Options{
		Device: device,
		Logger: slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime})),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	if err := a.Connect(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	answer, err := h.InvokeMethod(context.Background(), hub.ID{Device: "pump-7"},
		hub.MethodCall{Name: "dance", ResponseTimeout: 30 * time.Second})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(answer.Status)
	// Output:
	// {"level":"INFO","msg":"unknown direct method","device":"pump-7","method":"dance"}
	// 404
}

// Messages that another program of the machine leaves in the agent's folder, whether the agent runs or not.
func ExampleQueue() {
	h, device := exampleHub()
	defer h.Close()
	folder, err := os.MkdirTemp("", "pump-7-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)

	// The other program.
	if err := agent.Queue(folder, mqttdevice.Message{Payload: []byte(`{"pressure":1.5}`)}); err != nil {
		fmt.Println(err)
		return
	}

	a, err := agent.New(agent.Options{Device: device, Folder: folder})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	if err := a.Connect(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	for range time.Tick(10 * time.Millisecond) {
		if n := a.Outbox().Sent; n > 0 {
			fmt.Println("the hub has", n)
			return
		}
	}
	// Output: the hub has 1
}

// exampleHub starts a hub that knows the device pump-7, and says how that reaches it.
func exampleHub() (*node.Node, mqttdevice.Options) {
	h, err := node.New(node.Options{})
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go h.ServeMQTTS(listener)
	pump, err := h.PutIdentity(hub.ID{Device: "pump-7"}, hub.IdentitySpec{}, hub.Match{})
	if err != nil {
		panic(err)
	}
	return h, mqttdevice.Options{
		ConnectionString: sas.ConnectionString{HostName: "localhost", DeviceID: "pump-7", SharedAccessKey: pump.Auth.SymmetricKey.Primary},
		Addr:             listener.Addr().String(),
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	}
}
