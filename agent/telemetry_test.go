package agent

import (
	"testing"
	"time"

	"github.com/iotdm/iotdm/agent/outbox"
	"github.com/iotdm/iotdm/hub/hubtest"
)

func TestCloseReleasesTheOutbox(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	m.opt.Telemetry = Telemetry{Interval: time.Hour}
	for _, connect := range []bool{false, true, false} {
		a, err := New(m.opt)
		if err != nil {
			t.Fatal(err)
		}
		if connect {
			if err := a.Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		a.Close()
		box, err := outbox.Open(outboxFolder(m.opt.Folder), outbox.Options{})
		if err != nil {
			t.Fatalf("after Close: %v", err)
		}
		box.Close()
	}
}
