package hubtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// TestThermostat is a test of a device as programs that use hubtest write them.
func TestThermostat(t *testing.T) {
	h := hubtest.New(t)
	client, err := mqttdevice.New(mqttdevice.Options{
		ConnectionString: h.Device("thermostat-1"),
		Addr:             h.MQTTSAddr,
		TLS:              h.ClientTLS(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client.HandleMethod("heat", func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
		if _, err := client.PatchReported(ctx, map[string]int{"target": 21}); err != nil {
			return mqttdevice.Response{Status: 500, Payload: err.Error()}
		}
		return mqttdevice.Response{Status: 200}
	})
	if err := client.Connect(ctx); err != nil {
		t.Fatal(err)
	}

	// What a service would do, without a client: h is the hub itself.
	id := hub.ID{Device: "thermostat-1"}
	result, err := h.InvokeMethod(ctx, id, hub.MethodCall{Name: "heat"})
	if err != nil || result.Status != 200 {
		t.Fatalf("heat: %+v, %v", result, err)
	}
	twin, err := h.DeviceTwin(id)
	if want := `{"desired":{"$version":1},"reported":{"target":21,"$version":2}}`; err != nil || string(twin) != want {
		t.Errorf("twin %s, %v, want %s", twin, err, want)
	}
}
