package thermostat_test

import (
	"context"
	"testing"
	"time"

	thermostat "github.com/iotdm/iotdm/examples/ci/go"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/mqttdevice"
)

// start starts a hub, which each test has for itself, and a thermostat.
func start(t *testing.T) (context.Context, *hubtest.Hub, *thermostat.Thermostat) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	h := hubtest.New(t)
	device, err := thermostat.New(ctx, mqttdevice.Options{ConnectionString: h.Device("thermostat-1"), Addr: h.MQTTSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { device.Close() })
	return ctx, h, device
}

func reported(t *testing.T, h *hubtest.Hub) string {
	t.Helper()
	twin, err := h.DeviceTwin(hub.ID{Device: "thermostat-1"})
	if err != nil {
		t.Fatal(err)
	}
	return string(twin)
}

func TestADirectMethodSetsTheTarget(t *testing.T) {
	ctx, h, _ := start(t)
	result, err := h.InvokeMethod(ctx, hub.ID{Device: "thermostat-1"}, hub.MethodCall{Name: "setTarget", Payload: []byte(`{"target": 21}`)})
	if err != nil || result.Status != 200 {
		t.Fatalf("setTarget: status %d, %v", result.Status, err)
	}
	if got, want := reported(t, h), `{"desired":{"$version":1},"reported":{"target":21,"$version":2}}`; got != want {
		t.Errorf("the twin is %s, want %s", got, want)
	}
}

func TestADesiredPropertySetsTheTarget(t *testing.T) {
	ctx, h, _ := start(t)
	if _, err := h.PatchTwin(hub.ID{Device: "thermostat-1"}, hub.TwinChange{Desired: []byte(`{"target": 22}`)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	want := `{"desired":{"target":22,"$version":2},"reported":{"target":22,"$version":2}}`
	for reported(t, h) != want {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the twin is %s, want %s", reported(t, h), want)
		}
	}
}

func TestTheBackEndWarnsAThermostatThatIsTooHot(t *testing.T) {
	ctx, h, device := start(t)
	client, err := hubamqp.New(hubamqp.Options{ConnectionString: h.Policy("service"), Addr: h.AMQPSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	go thermostat.WarnWhenHot(ctx, client, 30)
	for _, temperature := range []float64{25, 31.5} {
		if err := device.Measure(ctx, temperature); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case got := <-device.Warnings:
		if want := "31.5 is too hot"; got != want {
			t.Errorf("the warning is %q, want %q", got, want)
		}
	case <-ctx.Done():
		t.Error("no warning came")
	}
}
