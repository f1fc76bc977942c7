package outbox_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A device that measures before it has a connection. What is in the outbox would outlive a restart, too.
func Example() {
	dir, err := os.MkdirTemp("", "outbox-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	box, err := outbox.Open(dir, outbox.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer box.Close()
	for _, reading := range []string{"21.5", "21.6", "21.4"} {
		m := mqttdevice.Message{
			Payload:     []byte(`{"temperature":` + reading + `}`),
			ContentType: mqttdevice.JSONType, ContentEncoding: mqttdevice.JSONEncoding,
		}
		if err := box.Add(m); err != nil { // durable, if there is none
			fmt.Println(err)
			return
		}
	}
	fmt.Println(box.Stats().Queued, "queued")

	h, client := exampleHub()
	defer h.Close()
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	if err := client.Connect(ctx); err != nil {
		fmt.Println(err)
	}
	go func() { ended <- box.Send(ctx, client) }() // for as long as the device runs
	tick := time.Tick(10 * time.Millisecond)
	for box.Stats().Queued > 0 {
		select {
		case err := <-ended:
			fmt.Println("sending ended early:", err)
			return
		case <-tick:
		}
	}
	fmt.Println(box.Stats().Sent, "sent")
	cancel()
	fmt.Println("at the end:", errors.Is(<-ended, context.Canceled))
	// Output:
	// 3 queued
	// 3 sent
	// at the end: true
}

// exampleHub starts a hub and returns the client of a device of it that is not connected yet.
func exampleHub() (*node.Node, *mqttdevice.Client) {
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
	client, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: sas.ConnectionString{HostName: "localhost", DeviceID: "dev-1", SharedAccessKey: device.Auth.SymmetricKey.Primary},
		Addr:             listener.Addr().String(),
		TLS:              &tls.Config{RootCAs: h.RootCAs()},
	})
	if err != nil {
		panic(err)
	}
	return h, client
}
