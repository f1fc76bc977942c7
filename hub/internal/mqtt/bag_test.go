package mqtt

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
)

func TestParseBag(t *testing.T) {
	for _, tt := range []struct {
		name, bag string
		want      []hub.Property
	}{
		{"nothing", "", nil},
		{"Python", "%24.mid=mid%201&%24.ct=application%2Fjson&a%20b=c%2Fd%26e%3Df", []hub.Property{{Name: "$.mid", Value: "mid 1"}, {Name: "$.ct", Value: "application/json"}, {Name: "a b", Value: "c/d&e=f"}}},
		{"Java's literal dollar", "$.mid=1&a=b", []hub.Property{{Name: "$.mid", Value: "1"}, {Name: "a", Value: "b"}}},
		{".NET's slash at the end", "%24.mid=1&a=b/", []hub.Property{{Name: "$.mid", Value: "1"}, {Name: "a", Value: "b"}}},
		{"a question mark in front", "?a=b", []hub.Property{{Name: "a", Value: "b"}}},
		{"null, empty and text", "p1&p2=&p3=a%20string", []hub.Property{{Name: "p1", Null: true}, {Name: "p2"}, {Name: "p3", Value: "a string"}}},
		{"plus is no blank", "a=b+c", []hub.Property{{Name: "a", Value: "b+c"}}},
		{"the last of two counts", "a=1&b=2&a=3", []hub.Property{{Name: "a", Value: "3"}, {Name: "b", Value: "2"}}},
		{"a value with an equals sign", "a=b=c", []hub.Property{{Name: "a", Value: "b=c"}}},
		{"every character that ids have", "$.mid=a-:.+%25_%23*?!(),=@;$'z", []hub.Property{{Name: "$.mid", Value: "a-:.+%_#*?!(),=@;$'z"}}},
		{"every character that ids have, encoded", "%24.mid=" + string(appendEscaped(nil, everyID)), []hub.Property{{Name: "$.mid", Value: everyID}}},
		{"a slash within", "a=b/c", []hub.Property{{Name: "a", Value: "b/c"}}},
		{"a slash that is encoded at the end", "a=b%2F", []hub.Property{{Name: "a", Value: "b/"}}},
		{"a question mark within", "a?b=c?d", []hub.Property{{Name: "a?b", Value: "c?d"}}},
		{"letters outside ASCII, encoded or not", "%C3%A4=ü", []hub.Property{{Name: "ä", Value: "ü"}}},
		{"no name", "=v", []hub.Property{{Value: "v"}}},
		{"encoded twice", "a=%2525", []hub.Property{{Name: "a", Value: "%25"}}},
		{"names in another case are others", "a=1&A=2", []hub.Property{{Name: "a", Value: "1"}, {Name: "A", Value: "2"}}},
		{"control characters, encoded", "a=%00%0A", []hub.Property{{Name: "a", Value: "\x00\n"}}},
		{"doubled separators", "&&a=1&&", []hub.Property{{Name: "a", Value: "1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseBag(tt.bag)
			if err != nil {
				t.Fatalf("parseBag(%q): %v", tt.bag, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("parseBag(%q) (-want +got):\n%s", tt.bag, diff)
			}
		})
	}
	for _, bag := range []string{"a=%", "a=%2", "a=%zz", "%ff=1", "a=%c3%28", "a=\xff", "a=%", "100%=1", "a%4=1", "a=%+1", "a=%u00e4"} {
		if got, err := parseBag(bag); err == nil {
			t.Errorf("parseBag(%q) = %v, want an error", bag, got)
		}
	}
}

// What the sender did not set is absent, and not empty: the Node SDK's tests fail
// on an ack that nobody set, and the .NET SDK drops a message whose expiry has
// another form.
func TestMessageBag(t *testing.T) {
	const to = "%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound"
	for _, tt := range []struct {
		name string
		m    hub.Message
		want string
	}{
		{"nothing", hub.Message{}, to},
		{"an ack of none", hub.Message{Ack: hub.AckNone}, to + "&iothub-ack=none"},
		{"an expiry in another zone", hub.Message{Expires: time.Date(2027, 1, 2, 3, 4, 5, 678999, time.FixedZone("", 3600))}, to + "&%24.exp=2027-01-02T02%3A04%3A05.0006789Z"},
		{"all", hub.Message{
			MessageID: "m", CorrelationID: "c", UserID: "u", ContentType: "t/x", ContentEncoding: "e", Ack: hub.AckFull,
			Expires: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), Properties: []hub.Property{{Name: "a", Value: "b"}, {Name: "empty"}, {Name: "null", Null: true}},
		}, "%24.mid=m&" + to + "&%24.cid=c&%24.uid=u&%24.ct=t%2Fx&%24.ce=e&%24.exp=2027-01-02T03%3A04%3A05.0000000Z&iothub-ack=full&a=b&empty=&null"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, messageBag(&tt.m, "d")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestNewTelemetry(t *testing.T) {
	got, err := newTelemetry("%24.mid=1&$.ct=text&%24.exp=2026&iothub-operation=op&$.cdid=other&%24.diagid=7&color=blue&none", []byte("body"), true, true)
	if err != nil {
		t.Fatal(err)
	}
	want := hub.Telemetry{
		Body:   []byte("body"),
		System: []hub.Property{{Name: "message-id", Value: "1"}, {Name: "content-type", Value: "text"}, {Name: "iothub-operation", Value: "op"}},
		Properties: []hub.Property{{Name: "$.diagid", Value: "7"}, {Name: "color", Value: "blue"}, {Name: "none", Null: true},
			{Name: "mqtt-retain", Value: "true"}, {Name: "mqtt-dup", Value: "true"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("newTelemetry (-want +got):\n%s", diff)
	}
	if got, want := want.Size(), len("body")+len("1"+"text"+"op")+len("$.diagid7"+"colorblue"+"none"+"mqtt-retaintrue"+"mqtt-duptrue"); got != want {
		t.Errorf("size %d, want %d", got, want)
	}
}

func FuzzBag(f *testing.F) {
	for _, s := range []string{"", "?a=b/", "%24.mid=1&a", "p1&p2=&p3=a%20string", "a=%c3%a5&%c3%a5=+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, bag string) {
		list, err := parseBag(bag)
		if err != nil {
			return
		}
		printed := string(appendBag(nil, list))
		again, err := parseBag(printed)
		if err != nil {
			t.Fatalf("parseBag(%q), printed of %q: %v", printed, bag, err)
		}
		if !slices.Equal(list, again) {
			t.Errorf("%q is %v, printed as %q, and then %v", bag, list, printed, again)
		}
	})
}
