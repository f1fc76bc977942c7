package hubrest

import (
	"context"
	"net/http"
	"strconv"
)

// A Fault is what is to go wrong in a hub under test, for whom and how often; docs/TEST-CONTROLS.md says what each does.
// Durations are in seconds.
type Fault struct {
	On string `json:"on"` // connection, telemetry, twin, method, message, rest or tls

	DeviceID string `json:"deviceId,omitempty"` // a device with its modules; empty is all
	ModuleID string `json:"moduleId,omitempty"` // one of its modules alone
	Where    string `json:"where,omitempty"`    // a condition on the device's twin
	Path     string `json:"path,omitempty"`     // of requests, with "*" for one segment, on rest only

	// One of these is what it does.
	Latency            float64 `json:"latencySeconds,omitempty"`
	Status             int     `json:"status,omitempty"`
	Drop               bool    `json:"drop,omitempty"`
	Refuse             bool    `json:"refuse,omitempty"`
	ExpiredCertificate bool    `json:"expiredCertificate,omitempty"`

	RetryAfter float64 `json:"retryAfterSeconds,omitempty"` // with the status 429 or 503

	Count int     `json:"count,omitempty"`      // how often it strikes; 0 is until it is cleared
	For   float64 `json:"forSeconds,omitempty"` // how long, by the hub's clock; 0 is the same
}

// An ActiveFault is a fault that was added.
type ActiveFault struct {
	ID int `json:"id"`
	Fault
	Struck int   `json:"struck"`          // how often it has struck
	Left   *int  `json:"left,omitempty"`  // how often it may yet; nil has no bound, and 0 has ended
	Until  *Time `json:"until,omitempty"` // when it ends, by the hub's clock
}

// AddFault adds a fault, which strikes from now on. Of several the one that was added first does.
func (c *Client) AddFault(ctx context.Context, f Fault) (ActiveFault, error) {
	return control[ActiveFault](ctx, c, request{what: "add a fault", method: http.MethodPost, path: controlPath("faults"), body: f, repeat: repeatRefused})
}

// Faults returns the faults that were added and not cleared, those that have ended included.
func (c *Client) Faults(ctx context.Context) ([]ActiveFault, error) {
	return control[[]ActiveFault](ctx, c, request{what: "list the faults", method: http.MethodGet, path: controlPath("faults"), repeat: repeatAlways})
}

// ClearFault removes one fault.
func (c *Client) ClearFault(ctx context.Context, id int) error {
	_, err := control[clearedAnswer](ctx, c, request{what: "clear fault " + strconv.Itoa(id), method: http.MethodDelete, path: controlPath("faults", strconv.Itoa(id)), repeat: repeatRefused})
	return err
}

// ClearFaults removes all faults and returns how many there were.
func (c *Client) ClearFaults(ctx context.Context) (int, error) {
	a, err := control[clearedAnswer](ctx, c, request{what: "clear the faults", method: http.MethodDelete, path: controlPath("faults"), repeat: repeatAlways})
	return a.Cleared, err
}

type clearedAnswer struct {
	Cleared int `json:"cleared"`
}
