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

// maxSeed holds tens of thousands of devices.
const maxSeed = 8 << 20

// resetHub resets to the seed that is the body, or to that of the start.
func (d *Door) resetHub(r *request) (reply, error) {
	seed, err := r.read(maxSeed)
	if err != nil {
		return reply{}, err
	}
	if len(seed) == 0 {
		return reply{}, d.controls.Reset(r.Context())
	}
	return reply{}, d.controls.ResetTo(r.Context(), seed)
}

// snapshotDocument is a snapshot as REST shows it.
type snapshotDocument struct {
	Name  string `json:"name"`
	Taken string `json:"taken"`
	Bytes int64  `json:"bytes"`
}

func newSnapshotDocument(s controls.Snapshot) snapshotDocument {
	return snapshotDocument{Name: s.Name, Taken: twin.FormatTime(s.Taken), Bytes: s.Bytes}
}

func (d *Door) listSnapshots(*request) (reply, error) {
	list, err := d.controls.Snapshots()
	docs := make([]snapshotDocument, len(list))
	for i, s := range list {
		docs[i] = newSnapshotDocument(s)
	}
	return reply{body: docs}, err
}

func (d *Door) saveSnapshot(r *request) (reply, error) {
	s, err := d.controls.SaveSnapshot(r.name)
	return reply{body: newSnapshotDocument(s)}, err
}

func (d *Door) loadSnapshot(r *request) (reply, error) {
	return reply{}, d.controls.LoadSnapshot(r.Context(), r.name)
}

func (d *Door) deleteSnapshot(r *request) (reply, error) {
	return reply{}, d.controls.DeleteSnapshot(r.name)
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
