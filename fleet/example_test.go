package fleet_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/iotdm/iotdm/fleet"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// Three devices that answer what a back end calls, here on a hub in this process.
func Example() {
	h, err := node.New(node.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go h.ServeMQTTS(l)

	var opt fleet.Options
	for _, id := range []string{"pump-1", "pump-2", "pump-3"} {
		device, err := h.PutIdentity(hub.ID{Device: id}, hub.IdentitySpec{}, hub.Match{})
		if err != nil {
			fmt.Println(err)
			return
		}
		opt.Devices = append(opt.Devices, mqttdevice.Options{
			ConnectionString: sas.ConnectionString{HostName: "localhost", DeviceID: id, SharedAccessKey: device.Auth.SymmetricKey.Primary},
			Addr:             l.Addr().String(),
			TLS:              &tls.Config{RootCAs: h.RootCAs()},
		})
	}
	f, err := fleet.New(opt)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- f.Run(ctx) }()

	// What the back end does.
	for _, d := range opt.Devices {
		answer, err := h.InvokeMethod(ctx, hub.ID{Device: d.ConnectionString.DeviceID},
			hub.MethodCall{Name: "rebootDevice", ResponseTimeout: 30 * time.Second, ConnectTimeout: 30 * time.Second})
		fmt.Println(d.ConnectionString.DeviceID, answer.Status, err)
	}
	cancel()
	err = <-ended
	s := f.Stats()
	fmt.Println(s.Reboots, "reboots,", s.Methods["200"], "good answers, error", err)
	// Output:
	// pump-1 200 <nil>
	// pump-2 200 <nil>
	// pump-3 200 <nil>
	// 3 reboots, 3 good answers, error <nil>
}
