package amqp_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// poll makes a recorded request of a registration one for this hub, which has meanwhile
// assigned the device.
func (r *replay) poll(m *wire.Message) {
	for i, e := range m.ApplicationProperties {
		if e.Key == "iotdps-operation-id" {
			m.ApplicationProperties[i].Value = r.ids[e.Value]
			r.h.Advance(2 * time.Second)
		}
	}
}

// wantOperation compares what a device is told of its registration.
func (r *replay) wantOperation(recorded, m *wire.Message) {
	r.t.Helper()
	r.same("correlation id", correlationOf(recorded), correlationOf(m))
	read := func(m *wire.Message) (o map[string]any) {
		if err := json.Unmarshal(slices.Concat(m.Data...), &o); err != nil {
			r.t.Fatal(err)
		}
		return o
	}
	want, got := read(recorded), read(m)
	r.same("status", want["status"], got["status"])
	r.ids[want["operationId"]] = got["operationId"]
	if want["status"] == "assigning" {
		r.wantTypes(recorded.ApplicationProperties, m.ApplicationProperties)
		return
	}
	state, _ := want["registrationState"].(map[string]any)
	ours, _ := got["registrationState"].(map[string]any)
	for name, v := range state {
		if fmt.Sprintf("%T", v) != fmt.Sprintf("%T", ours[name]) {
			r.t.Errorf("registrationState has %s %#v, want what is like %#v", name, ours[name], v)
		}
	}
	for _, name := range []string{"registrationId", "assignedHub", "deviceId", "status", "substatus"} {
		r.same(name, state[name], ours[name])
	}
}
