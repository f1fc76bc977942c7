package hubrest_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"

	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// startHub starts a hub in memory and returns the connection string of its owner.
func startHub() (cs sas.ConnectionString, conf *tls.Config, stop func()) {
	s, err := node.New(node.Options{})
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go s.ServeHTTPS(l)
	for _, p := range s.Policies() {
		if p.Name == "iothubowner" {
			cs = sas.ConnectionString{HostName: l.Addr().String(), SharedAccessKeyName: p.Name, SharedAccessKey: p.PrimaryKey}
		}
	}
	return cs, &tls.Config{RootCAs: s.RootCAs()}, func() { s.Close() }
}

func Example() {
	cs, conf, stop := startHub() // with Azure: sas.ParseConnectionString, and no TLS configuration
	defer stop()
	client, err := hubrest.New(hubrest.Options{ConnectionString: cs, TLS: conf})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx := context.Background()
	if _, err := client.CreateDevice(ctx, hubrest.Device{DeviceID: "device-1"}); err != nil {
		log.Fatal(err)
	}
	twin, err := client.PatchTwin(ctx, hubrest.Target{DeviceID: "device-1"}, hubrest.TwinChange{
		Tags:    map[string]any{"floor": 3},
		Desired: json.RawMessage(`{"interval": 5}`),
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(twin.DeviceID, twin.ConnectionState, string(twin.Tags), twin.DesiredVersion)
	// Output: device-1 Disconnected {"floor":3} 2
}

func ExampleClient_InvokeMethod() {
	cs, conf, stop := startHub()
	defer stop()
	client, err := hubrest.New(hubrest.Options{ConnectionString: cs, TLS: conf})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	if _, err := client.CreateDevice(ctx, hubrest.Device{DeviceID: "device-1"}); err != nil {
		log.Fatal(err)
	}

	answer, err := client.InvokeMethod(ctx, hubrest.Target{DeviceID: "device-1"}, hubrest.Method{Name: "rebootDevice"})
	var refusal *hubrest.Error
	switch {
	case errors.Is(err, hubrest.ErrNotOnline):
		fmt.Println("start the device and try again")
	case errors.As(err, &refusal):
		fmt.Println("ask the hub's operator about", refusal.TrackingID)
	case err != nil:
		fmt.Println("the hub can't be reached:", err)
	default:
		fmt.Println(answer.Status, string(answer.Payload))
	}
	// Output: start the device and try again
}

// What was read is written back only if nobody else has changed it in between.
func ExampleClient_UpdateDevice() {
	cs, conf, stop := startHub()
	defer stop()
	client, err := hubrest.New(hubrest.Options{ConnectionString: cs, TLS: conf})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	if _, err := client.CreateDevice(ctx, hubrest.Device{DeviceID: "device-1"}); err != nil {
		log.Fatal(err)
	}

	for {
		device, err := client.Device(ctx, "device-1")
		if err != nil {
			log.Fatal(err)
		}
		device.Status, device.StatusReason = hubrest.Disabled, "lost"
		device, err = client.UpdateDevice(ctx, device)
		if errors.Is(err, hubrest.ErrPreconditionFailed) {
			continue // somebody else was faster
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(device.Status, device.StatusReason)
		break
	}
	// Output: disabled lost
}
