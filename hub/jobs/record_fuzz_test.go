package jobs

import (
	"encoding/json"
	"errors"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/twin"
)

// A job that is stored is read as it was, whatever is in it; what is no job is
// an error.
func FuzzJobRecord(f *testing.F) {
	f.Add([]byte(`{"ID":"j","Type":"scheduleUpdateTwin","Condition":"*","Start":"2026-03-14T09:26:53Z","MaxTime":3600000000000,"Twin":{"Tags":null,"Desired":{"a":1}},"Status":"queued","Created":"2026-03-14T09:26:53.5897932Z","Started":"0001-01-01T00:00:00Z","Ended":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"ID":"j","Type":"scheduleDeviceMethod","Method":{"Name":"m","Payload":[1e2, "\ud800"],"ResponseTimeout":5000000000},"Statistics":{"deviceCount":1},"FailureReason":"<&>"}`))
	f.Add([]byte(`{"Method":{"Payload":null},"Twin":{}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		job, err := decode("j", data, nil)
		if err != nil {
			return
		}
		again, err := json.Marshal(job)
		if err != nil {
			t.Fatalf("%q is read as %+v, which cannot be stored: %v", data, job, err)
		}
		read, err := decode("j", again, nil)
		if err != nil {
			t.Fatalf("%q is stored again as %q: %v", data, again, err)
		}
		if job.Method != nil {
			// JSON is stored without blanks.
			job.Method.Payload, read.Method.Payload = plain(t, job.Method.Payload), plain(t, read.Method.Payload)
		}
		if job.Twin != nil {
			job.Twin.Tags, read.Twin.Tags = plain(t, job.Twin.Tags), plain(t, read.Twin.Tags)
			job.Twin.Desired, read.Twin.Desired = plain(t, job.Twin.Desired), plain(t, read.Twin.Desired)
		}
		if diff := cmp.Diff(job, read); diff != "" {
			t.Errorf("%q stored again (-read +again):\n%s", data, diff)
		}
	})
}

// plain is JSON in one spelling. What is absent is null.
func plain(t *testing.T, text json.RawMessage) json.RawMessage {
	t.Helper()
	if text == nil {
		return json.RawMessage("null")
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return text // of a number that no float can hold
	}
	again, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// A row is JSON that says what came of a device, whatever that answered and
// however it failed, and its status is found without decoding it.
func FuzzRow(f *testing.F) {
	f.Add("dev", "j-1", byte(0), int32(200), []byte(`{"status":"failed"}`), "text", int64(0), []byte(nil))
	f.Add(`a'$;#%"`, "j", byte(1), int32(-1), []byte("null"), "\"\xff\u2028<&>", int64(1<<62), []byte(`{"deviceId":"x","status":"running"}`))
	f.Add("d", "j", byte(2), int32(0), []byte(`"\ud800"`), "", int64(-1), []byte(`{"status":{"status":"pending"}}`))
	f.Add("d", "j", byte(2), int32(200), []byte("{'filename': \xff"), "", int64(0), []byte(nil))
	f.Add("d", "j", byte(3), int32(0), []byte(`1e400`), "", int64(1), []byte(`{"a":"status\":`))
	statuses := []rowStatus{rowPending, rowRunning, rowCompleted, rowFailed, rowCanceled}
	f.Fuzz(func(t *testing.T, device, job string, kind byte, status int32, payload []byte, reason string, at int64, stored []byte) {
		_ = storedStatus(stored) // whatever it is
		if !hub.ValidName(device) || !hub.ValidName(job) {
			return
		}
		now := time.Unix(0, at).UTC()
		d := row{device: device, status: statuses[int(kind)%len(statuses)], started: now, repeated: kind&0x40 != 0}
		switch {
		case kind&0x80 != 0:
			d.outcome(now, hub.ErrBadDeviceResponse.With("%s", reason))
		case kind&0x20 != 0:
			d.outcome(now, errors.New(reason))
		case d.status == rowCompleted:
			d.result = &hub.MethodResult{Status: status, Payload: payload, NotJSON: !json.Valid(payload) || !utf8.Valid(payload)}
		}
		if d.result != nil && d.result.NotJSON {
			payload = words.MustMarshal(string(payload)) // a text
		}
		text := d.encode(&Job{Spec: Spec{ID: job, Type: Method}, Created: now}, now)
		var got struct {
			DeviceID, JobID, Status, StartTimeUTC string
			Repeated                              bool
			Outcome                               struct {
				DeviceMethodResponse *struct {
					Status  int32
					Payload json.RawMessage
				}
			}
			Error *struct{ Description string }
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("the row is %q: %v", text, err)
		}
		if got.DeviceID != device || got.JobID != job || got.Status != string(d.status) || got.Repeated != d.repeated || got.StartTimeUTC != twin.FormatTime(now) {
			t.Errorf("%+v is stored as %s", d, text)
		}
		if got := storedStatus(text); got != d.status {
			t.Errorf("the status of %s is read as %q", text, got)
		}
		if d.result != nil && (got.Outcome.DeviceMethodResponse == nil || got.Outcome.DeviceMethodResponse.Status != status || string(plain(t, got.Outcome.DeviceMethodResponse.Payload)) != string(plain(t, payload))) {
			t.Errorf("the answer %d %s is stored as %s", status, payload, text)
		}
		if (d.failure != nil) != (got.Error != nil) {
			t.Errorf("the failure %v is stored as %s", d.failure, text)
		}
	})
}
