package wiretest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/jobs"
	"github.com/iotdm/iotdm/hub/node"
)

// Respond connects a device that answers every direct method with status and
// body, or never if status is 0. It says on called, if that is not nil, that it
// was called.
func Respond(t testing.TB, h *hubtest.Hub, device string, status int, body string, called chan<- string) *Responder {
	t.Helper()
	r := &Responder{Client: DialTLS(t, h)}
	r.Connect(h.Device(device), CleanSession)
	r.Subscribe(0, "$iothub/methods/POST/#")
	go func() {
		for {
			p, err := packets.ReadPacket(r)
			if err != nil {
				return
			}
			m, ok := p.(*packets.PublishPacket)
			if !ok {
				continue
			}
			r.Calls.Add(1)
			if called != nil {
				called <- device
			}
			if status == 0 {
				continue
			}
			if PublishPacket(0, 0, fmt.Sprintf("$iothub/methods/res/%d/?$rid=%s", status, RequestID(m)), body).Write(r) != nil {
				return
			}
		}
	}()
	return r
}

// TwinJob is a job that merges desired properties into twins at once.
func TwinJob(id, condition, desired string) jobs.Spec {
	return jobs.Spec{ID: id, Type: jobs.Twin, Condition: condition, Twin: &hub.TwinChange{Desired: json.RawMessage(desired)}}
}

// CreateJob creates a job.
func CreateJob(t testing.TB, s *node.Node, spec jobs.Spec) jobs.Job {
	t.Helper()
	job, err := s.Jobs.Create(spec)
	if err != nil {
		t.Fatalf("create job %s: %v", spec.ID, err)
	}
	return job
}

// WaitJob returns a job when it has ended.
func WaitJob(t testing.TB, s *node.Node, id string) jobs.Job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	job, err := s.Jobs.Wait(ctx, id)
	if err != nil {
		t.Fatalf("wait for job %s, which is %+v: %v", id, job, err)
	}
	return job
}

// Outcomes returns the status, answer or error of each device of a job.
func Outcomes(t testing.TB, s *node.Node, job string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for row, err := range s.Jobs.Devices(job) {
		if err != nil {
			t.Fatal(err)
		}
		var d struct {
			DeviceID, Status string
			Outcome          struct {
				DeviceMethodResponse *struct {
					Status  int
					Payload json.RawMessage
				}
			}
			Error    *struct{ Code, Description string }
			Repeated bool
		}
		if err := json.Unmarshal(row, &d); err != nil {
			t.Fatalf("%s: %v", row, err)
		}
		text := d.Status
		if r := d.Outcome.DeviceMethodResponse; r != nil {
			text += fmt.Sprintf(" %d %s", r.Status, r.Payload)
		}
		if d.Error != nil {
			text += " " + d.Error.Code
		}
		if d.Repeated {
			text += " repeated"
		}
		all[d.DeviceID] = text
	}
	return all
}

// WantOutcomes checks what Outcomes returns.
func WantOutcomes(t testing.TB, s *node.Node, job string, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, Outcomes(t, s, job)); diff != "" {
		t.Errorf("devices of %s (-want +got):\n%s", job, diff)
	}
}

// A Responder is a connected device that answers direct methods.
type Responder struct {
	*Client
	Calls atomic.Int64 // how many it has received
}
