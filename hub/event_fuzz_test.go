package hub

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/eventlog"
)

// FuzzEvent states two laws: what is decoded is what was encoded, and bytes
// that are no event are an error.
func FuzzEvent(f *testing.F) {
	f.Add("d1", "m1", "name", "value", true, []byte("body"))
	f.Add("", "", "", "", false, []byte{eventFormat, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, device, module, name, value string, null bool, body []byte) {
		want := Event{
			Source: SourceTelemetry, From: ID{device, module}, Generation: value, AuthMethod: name, Model: value,
			System: []Property{{Name: name, Value: value}}, Properties: []Property{{Name: name, Null: true}, {Name: value, Value: name}}, Body: body,
		}
		if null {
			want.System = nil
		}
		data := want.appendTo(nil, nil)
		got, err := decodeEvent(eventlog.Record{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Event{}, "Enqueued")); diff != "" {
			t.Errorf("decoded event (-want +got):\n%s", diff)
		}
		if !isEventOf(data, device) || isEventOf(data, device+"x") {
			t.Errorf("isEventOf does not know %q", device)
		}
		decodeEvent(eventlog.Record{Data: body})
		isEventOf(body, device)
	})
}
