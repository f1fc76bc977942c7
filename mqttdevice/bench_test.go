package mqttdevice_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// BenchmarkMethod is one direct method after the other, from the hub to the device and back. The bare
// device is a paho client that answers on paho's own goroutine, without looking at anything.
func BenchmarkMethod(b *testing.B) {
	h := hubtest.New(b)
	for _, callers := range []int{1, 8} {
		for _, name := range []string{"bare", "client"} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				conn := h.Device(name)
				benchDevices[name](b, h, h.ClientTLS(), conn)
				call := hub.MethodCall{Name: "echo", ResponseTimeout: 30 * time.Second, Payload: json.RawMessage(`{"interval":30}`)}
				b.ReportAllocs()
				invoke := func() {
					if _, err := h.InvokeMethod(b.Context(), hub.ID{Device: name}, call); err != nil {
						b.Error(err)
					}
				}
				if callers == 1 {
					for b.Loop() {
						invoke()
					}
					return
				}
				b.SetParallelism(callers / runtime.GOMAXPROCS(0))
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						invoke()
					}
				})
			})
		}
	}
}

// BenchmarkMemory is what a connected device takes that does nothing, the hub's end of it included.
func BenchmarkMemory(b *testing.B) {
	for _, name := range []string{"bare", "client"} {
		b.Run(name, func(b *testing.B) {
			h := hubtest.New(b)
			config := h.ClientTLS() // one for all
			const devices = 500
			conns := make([]sas.ConnectionString, devices)
			for i := range conns {
				conns[i] = h.Device(fmt.Sprint(name, i))
			}
			before, goroutines := memory(), runtime.NumGoroutine()
			for _, conn := range conns {
				benchDevices[name](b, h, config, conn)
			}
			b.ReportMetric(float64(memory()-before)/devices, "B/device")
			b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/devices, "goroutines/device")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// memory is what the heap holds, and all stacks.
func memory() int64 {
	runtime.GC()
	runtime.GC() // pools let go in two steps
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// benchDevices connect, and echo every direct method until the benchmark ends.
var benchDevices = map[string]func(*testing.B, *hubtest.Hub, *tls.Config, sas.ConnectionString){
	"bare":   bareDevice,
	"client": clientDevice,
}

func clientDevice(b *testing.B, h *hubtest.Hub, config *tls.Config, conn sas.ConnectionString) {
	b.Helper()
	c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: conn, Addr: h.MQTTSAddr, TLS: config})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	c.HandleMethod("echo", echo)
	if err := c.Connect(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func bareDevice(b *testing.B, h *hubtest.Hub, config *tls.Config, conn sas.ConnectionString) {
	b.Helper()
	config = config.Clone()
	config.ServerName = h.HostName
	password, err := sas.Sign(conn.Audience(), "", conn.SharedAccessKey, time.Now().Add(time.Hour))
	if err != nil {
		b.Fatal(err)
	}
	opt := mqtt.NewClientOptions().
		AddBroker("ssl://" + h.MQTTSAddr).
		SetTLSConfig(config).
		SetClientID(conn.DeviceID).
		SetUsername(conn.HostName + "/" + conn.DeviceID + "/?api-version=2021-04-12").
		SetPassword(password).
		SetAutoReconnect(false).
		SetDefaultPublishHandler(func(c mqtt.Client, m mqtt.Message) {
			_, rid, _ := strings.Cut(m.Topic(), "?")
			c.Publish("$iothub/methods/res/200/?"+rid, 0, false, m.Payload())
		})
	c := mqtt.NewClient(opt)
	for _, token := range []func() mqtt.Token{c.Connect, func() mqtt.Token { return c.Subscribe("$iothub/methods/POST/#", 0, nil) }} {
		if t := token(); !t.WaitTimeout(time.Minute) || t.Error() != nil {
			b.Fatal(t.Error())
		}
	}
	b.Cleanup(func() { c.Disconnect(1000) })
}
