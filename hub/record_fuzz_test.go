package hub

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/twin"
)

// What is stored of a twin is read as it was, and whatever else is stored is
// read again as it was read, or refused; no part of it is read as another twin.
func FuzzTwinRecord(f *testing.F) {
	seed := newTwin(ID{Device: "d"}, time.Unix(1, 0))
	f.Add(seed.encode(), "", uint64(1), int64(2), `{}`, `{"a":1}`, "")
	seed.ModelID, seed.Configurations = "dtmi:a;1", []byte(`{"c":{"status":"Applied"}}`)
	f.Add(seed.encode(), "dtmi:a;1", uint64(1<<63), int64(-1), "\xff", ``, `{"c":{}}`)
	f.Add([]byte{twinFormat, 1, 2, 0xff, 0xff, 0xff, 0xff, 0x0f}, "m", uint64(0), int64(0), `{"t":1}`, `{}`, "")
	f.Fuzz(func(t *testing.T, stored []byte, model string, etag uint64, version int64, tags, properties, configurations string) {
		raw := func(text string) json.RawMessage { return json.RawMessage(text) }
		want := Twin{
			ModelID: model, etag: etag, version: version, Tags: raw(tags), Configurations: raw(configurations),
			Desired:  twin.Section{Version: version, Properties: raw(properties), Metadata: raw(tags)},
			Reported: twin.Section{Version: int64(etag), Properties: raw(tags), Metadata: raw(properties)},
		}
		data := want.encode()
		got, err := decodeTwin(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := diffTwins(want, got); diff != "" {
			t.Errorf("twin (-want +got):\n%s", diff)
		}
		whole := len(data)
		if configurations != "" {
			want.Configurations = nil
			whole = len(want.encode()) // one without them is a twin, too
		}
		for n := range data {
			if got, err := decodeTwin(data[:n]); err == nil && n != whole {
				t.Errorf("the first %d of %d bytes are taken for %+v", n, len(data), got)
			}
		}
		if got, err := decodeTwin(stored); err == nil {
			again, err := decodeTwin(got.encode())
			if diff := diffTwins(got, again); diff != "" || err != nil {
				t.Errorf("twin from %q: %v (-read +stored again):\n%s", stored, err, diff)
			}
		}
	})
}

func diffTwins(want, got Twin) string {
	return cmp.Diff(want, got, cmp.AllowUnexported(Twin{}), cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Twin{}, "stored", "storedDesired", "storedReported"))
}

// The same of a cloud-to-device message and of a device's queue.
func FuzzMessageRecord(f *testing.F) {
	m := Message{MessageID: "m", Ack: AckFull, Expires: time.Unix(7, 0), Properties: []Property{{Name: "a", Value: "b"}, {Name: "n", Null: true}}, Body: []byte("x")}
	f.Add(m.encode(time.Unix(1, 2)), "m-1", "full", []byte("body"), int64(1), uint64(3), 2)
	f.Add(encodeQueue([]queuedMessage{{1, time.Unix(2, 0), 3}, {2, time.Unix(3, 0), 0}}), "", "", []byte{}, int64(-1), uint64(1<<63), 0)
	f.Add([]byte{messageFormat, 1, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, "\xff", "x", []byte{0}, int64(0), uint64(0), -1)
	f.Fuzz(func(t *testing.T, stored []byte, text, ack string, body []byte, at int64, sequence uint64, deliveries int) {
		m := Message{
			MessageID: text, CorrelationID: ack, UserID: text, ContentType: ack, ContentEncoding: text, Ack: Ack(ack), Expires: time.Unix(0, at),
			Properties: []Property{{Name: text, Value: ack}, {Name: ack, Null: true}}, Body: body,
		}
		if at == 0 {
			m.Expires = time.Time{} // none
		}
		want := ReceivedMessage{Message: m, Enqueued: time.Unix(0, at)}
		data := m.encode(want.Enqueued)
		got, err := decodeMessage(data)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("message: %v (-want +got):\n%s", err, diff)
		}
		for n := range len(data) - len(body) {
			if got, err := decodeMessage(data[:n]); err == nil {
				t.Errorf("the first %d of %d bytes are taken for %+v", n, len(data), got)
			}
		}
		if got, err := decodeMessage(stored); err == nil {
			again, err := decodeMessage(got.encode(got.Enqueued))
			if diff := cmp.Diff(got, again); diff != "" || err != nil {
				t.Errorf("message from %q: %v (-read +stored again):\n%s", stored, err, diff)
			}
			if len(got.Properties) > len(stored) {
				t.Errorf("%d properties of %d bytes", len(got.Properties), len(stored))
			}
		}

		queue := []queuedMessage{{sequence, time.Unix(0, at), deliveries}, {sequence + 1, want.Enqueued, 0}}
		again, err := decodeQueue(encodeQueue(queue), nil)
		if !slices.EqualFunc(queue, again, sameQueued) || err != nil {
			t.Errorf("queue is read as %v, %v, want %v", again, err, queue)
		}
		if queue, err := decodeQueue(stored, nil); err == nil {
			if again, err := decodeQueue(encodeQueue(queue), nil); !slices.EqualFunc(queue, again, sameQueued) || err != nil {
				t.Errorf("queue from %q is read again as %v, %v, want %v", stored, again, err, queue)
			}
		}
	})
}

func sameQueued(a, b queuedMessage) bool {
	return a.sequence == b.sequence && a.expires.Equal(b.expires) && a.deliveries == b.deliveries
}
