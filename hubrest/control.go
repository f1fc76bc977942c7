package hubrest

import (
	"context"
	"net/http"
	"time"
)

// Test controls are calls that only a hub of iotdm answers, if it was started with --test-controls. They need a policy
// with every right, such as iothubowner, and fail with ErrNoTestControls if the hub has none.

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
