package rest

import (
	"math"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/controls"
	"github.com/iotdm/iotdm/twin"
)

// Routes with the trait control are those of a hub under test. They are there if
// the hub has test controls, and need every right that there is: whoever
// controls a hub has all that is in it. Tokens for them are judged by the time
// from before the hub's clock was moved, so that who has moved it can set it
// back, and so are those that are made by the moved clock. What
// reset, faults and the journal do to requests they do not do to these.
var mayControl = hub.Permission{
	Rights: hub.AnyOf{{hub.RegistryRead, hub.RegistryWrite, hub.ServiceConnect, hub.DeviceConnect}},
	Action: "iotdm/control/action",
}

// clockDocument is the hub's clock as REST shows it.
type clockDocument struct {
	Time         string  `json:"time"`
	AheadSeconds float64 `json:"aheadSeconds"` // of the machine's time
}

func newClockDocument(c controls.Clock) clockDocument {
	return clockDocument{Time: twin.FormatTime(c.Time), AheadSeconds: c.Ahead.Seconds()}
}

func (d *Door) clock(*request) (reply, error) {
	return reply{body: newClockDocument(d.controls.Clock())}, nil
}

func (d *Door) advanceClock(r *request) (reply, error) {
	var move struct{ AdvanceSeconds float64 }
	if err := r.decode(&move); err != nil {
		return reply{}, err
	}
	const most = 1 << 33 // more does not fit into a duration
	if math.Abs(move.AdvanceSeconds) > most {
		return reply{}, hub.ErrArgumentInvalid.With("advanceSeconds: %g are too many", move.AdvanceSeconds)
	}
	now, err := d.controls.Advance(time.Duration(move.AdvanceSeconds * float64(time.Second)))
	return reply{body: newClockDocument(now)}, err
}

func (d *Door) resetClock(*request) (reply, error) {
	now, err := d.controls.ResetClock()
	return reply{body: newClockDocument(now)}, err
}
