package hubrest

import (
	"context"
	"net/http"
	"time"
)

// Test controls are calls that only a hub of iotdm answers, if it was started with --test-controls. They need a policy
// with every right, such as iothubowner, and fail with ErrNoTestControls if the hub has none.

// Reset makes the hub what it was when it first began to serve: its seed, and nothing else. Connections of devices end;
// readers of events stay. Policies, certificates and snapshots are as before.
func (c *Client) Reset(ctx context.Context) error {
	_, err := c.do(ctx, request{what: "reset the hub", method: http.MethodPost, path: controlPath("reset"), repeat: repeatRefused}, nil)
	return err
}

// ResetTo is Reset to another seed, in YAML or JSON, this time; an empty one is nothing. The Message of an *Error with
// status 400 is the line and the name of what is wrong in it; nothing has changed then. Policies and consumer groups
// in the seed must be those of the hub.
func (c *Client) ResetTo(ctx context.Context, seed []byte) error {
	if len(seed) == 0 { // no body is the seed of the start
		seed = []byte("{}")
	}
	r := request{what: "reset the hub", method: http.MethodPost, path: controlPath("reset"), body: seed, repeat: repeatRefused, timeout: snapshotTimeout}
	r.header = http.Header{"Content-Type": {"application/yaml"}} // which JSON is too
	_, err := c.do(ctx, r, nil)
	return err
}

// A Snapshot is a state of the hub that has been put by under a name.
type Snapshot struct {
	Name  string `json:"name"`
	Taken Time   `json:"taken"`
	Bytes int64  `json:"bytes"`
}

// Snapshots returns the hub's snapshots in the order of their names.
func (c *Client) Snapshots(ctx context.Context) ([]Snapshot, error) {
	return control[[]Snapshot](ctx, c, request{what: "list snapshots", method: http.MethodGet, path: controlPath("snapshots"), repeat: repeatAlways})
}

// SaveSnapshot puts by what the hub has under a name, in place of what there was under it.
func (c *Client) SaveSnapshot(ctx context.Context, name string) (Snapshot, error) {
	return control[Snapshot](ctx, c, request{what: "save snapshot", method: http.MethodPut, path: controlPath("snapshots", name), repeat: repeatRefused, timeout: snapshotTimeout})
}

// LoadSnapshot makes the hub what it was when the snapshot was saved, or fails with ErrNotFound. Connections of devices
// end; readers of events stay.
func (c *Client) LoadSnapshot(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{what: "load snapshot", method: http.MethodPost, path: controlPath("snapshots", name, "load"), repeat: repeatRefused, timeout: snapshotTimeout}, nil)
	return err
}

// DeleteSnapshot removes a snapshot, or fails with ErrNotFound.
func (c *Client) DeleteSnapshot(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{what: "delete snapshot", method: http.MethodDelete, path: controlPath("snapshots", name), repeat: repeatRefused}, nil)
	return err
}

// snapshotTimeout is enough for a million devices.
const snapshotTimeout = 5 * time.Minute

// A Clock is what a hub's clock shows.
type Clock struct {
	Time         Time    `json:"time"`
	AheadSeconds float64 `json:"aheadSeconds"` // of the time of the hub's machine
}

// Clock returns what the hub's clock shows.
func (c *Client) Clock(ctx context.Context) (Clock, error) {
	return control[Clock](ctx, c, request{what: "read the hub's clock", method: http.MethodGet, path: controlPath("clock"), repeat: repeatAlways})
}

// AdvanceClock moves the hub's clock by d, above 0, and with it all that waits for the hub's time.
func (c *Client) AdvanceClock(ctx context.Context, d time.Duration) (Clock, error) {
	body := struct {
		AdvanceSeconds float64 `json:"advanceSeconds"`
	}{d.Seconds()}
	return control[Clock](ctx, c, request{what: "advance the hub's clock", method: http.MethodPost, path: controlPath("clock"), body: body, repeat: repeatRefused})
}

// ResetClock has the hub's clock show the time of its machine again.
func (c *Client) ResetClock(ctx context.Context) (Clock, error) {
	return control[Clock](ctx, c, request{what: "reset the hub's clock", method: http.MethodDelete, path: controlPath("clock"), repeat: repeatAlways})
}

// control makes a request to a test control and returns what the hub answers.
func control[T any](ctx context.Context, c *Client, r request) (answer T, err error) {
	_, err = c.do(ctx, r, &answer)
	return answer, err
}

func controlPath(rest ...string) []string { return append([]string{"iotdm", "control"}, rest...) }
