package node_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// A hub in memory, with a device that answers a direct method.
func Example() {
	ctx := context.Background()
	n, err := node.New(node.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer n.Close() // does nothing after Shutdown

	mqtts, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	failed := n.Serve(node.Listeners{MQTTS: mqtts})

	device, err := n.PutIdentity(hub.ID{Device: "thermostat-1"}, hub.IdentitySpec{}, hub.Match{})
	if err != nil {
		fmt.Println(err)
		return
	}
	client, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: sas.ConnectionString{
			HostName: "localhost", DeviceID: device.Device, SharedAccessKey: device.Auth.SymmetricKey.Primary,
		},
		Addr: mqtts.Addr().String(),
		TLS:  &tls.Config{RootCAs: n.RootCAs()},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()
	client.HandleMethod("heat", func(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
		return mqttdevice.Response{Status: 200, Payload: m.Payload}
	})
	if err := client.Connect(ctx); err != nil {
		fmt.Println(err)
		return
	}

	result, err := n.InvokeMethod(ctx, device.ID, hub.MethodCall{Name: "heat", Payload: []byte(`{"to":21}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Status, string(result.Payload))

	if err := n.Shutdown(ctx); err != nil {
		fmt.Println(err)
	}
	select {
	case err := <-failed: // a listener that broke
		fmt.Println(err)
	default:
	}
	// Output: 200 {"to":21}
}
