package hubrest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// EventSource tells what an event is about; see the message sources in "Azure IoT Hub message routing".
type EventSource string

// The sources of events.
const (
	SourceTelemetry       EventSource = "Telemetry"
	SourceTwinChange      EventSource = "twinChangeEvents"
	SourceDeviceLifecycle EventSource = "deviceLifecycleEvents"
	SourceConnectionState EventSource = "deviceConnectionStateEvents"
)

// An EventQuery says which events to read. The zero value is all that the hub keeps.
type EventQuery struct {
	Device  string        // of this device and its modules; empty: of all
	Sources []EventSource // of these; none: of all
	Since   time.Time     // enqueued then or later; zero: from the first that is kept
	Latest  bool          // none of those that are there already
	Last    int           // only the last so many, up to 100,000, of those that are there; 0: all
	Follow  bool          // go on with those that come, until ctx ends

	// Damaged is called, if it isn't nil, where events are missing because the hub's disk has damaged them.
	Damaged func(EventDamage)
}

// An EventDamage is a place of so many bytes in the hub's event log whose events are lost.
type EventDamage struct {
	Offset string `json:"offset"`
	Bytes  int64  `json:"bytes"`
}

// maxEvent is the most of one event: a message of 256 KiB whose every byte JSON escapes, and more.
const maxEvent = 4 << 20

// Events calls fn for each event of the query, in order. An event is a JSON object as "az iot hub monitor-events"
// prints it, and is only valid until fn returns. Begun, if it isn't nil, is called once the hub has accepted the query.
// Events ends with the error of fn, that of ctx, or one from the way to the hub; it does not connect again.
//
// Only the hub of iotdm has this call. Azure IoT Hub has an endpoint that is compatible with Event Hubs.
func (c *Client) Events(ctx context.Context, q EventQuery, begun func(), fn func(event json.RawMessage) error) error {
	const what = "read events"
	values := url.Values{}
	if q.Device != "" {
		values.Set("device", q.Device)
	}
	for _, source := range q.Sources {
		values.Add("source", string(source))
	}
	switch {
	case q.Latest:
		values.Set("from", "latest")
	case !q.Since.IsZero():
		values.Set("from", q.Since.UTC().Format(time.RFC3339Nano))
	}
	if q.Last > 0 {
		values.Set("last", strconv.Itoa(q.Last))
	}
	if q.Follow {
		values.Set("follow", "true")
	}
	body, err := c.open(ctx, request{what: what, method: http.MethodGet, path: []string{"iotdm", "events"}, query: values})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer body.Close()
	if begun != nil {
		begun()
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		if !json.Valid(lines.Bytes()) {
			return fmt.Errorf("%s: the hub sent what is no JSON", what)
		}
		if damage, ok := damageOf(lines.Bytes()); ok {
			if q.Damaged != nil {
				q.Damaged(damage)
			}
			continue
		}
		if err := fn(lines.Bytes()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s: %w", what, netError(err))
	}
	return nil
}

// damageOf returns what a line tells that is no event, but the lack of some.
func damageOf(line []byte) (EventDamage, bool) {
	if !bytes.HasPrefix(line, []byte(`{"damaged":`)) {
		return EventDamage{}, false
	}
	var doc struct {
		Damaged EventDamage `json:"damaged"`
	}
	err := json.Unmarshal(line, &doc)
	return doc.Damaged, err == nil
}

// open makes a request whose answer has no end in sight. It is sent once. The caller closes the body.
func (c *requester) open(ctx context.Context, r request) (io.ReadCloser, error) {
	auth, err := c.cred.authorization(ctx)
	if err != nil {
		return nil, &credentialError{err}
	}
	req := c.newRequest(ctx, r, nil)
	req.Header.Set("Authorization", auth)
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, netError(err)
	}
	c.log.Debug("request", keyMethod, r.method, keyPath, req.URL.EscapedPath(), keyStatus, resp.StatusCode)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		a := answer{status: resp.StatusCode, header: resp.Header}
		a.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // the status says enough
		return nil, c.parseError(a)
	}
	return resp.Body, nil
}
