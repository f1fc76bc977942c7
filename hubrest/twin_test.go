package hubrest_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestTwinsKeepTheBytesOfWhatIsTheUsers(t *testing.T) {
	c, body := replay(t, "twin.json")
	got, err := c.Twin(t.Context(), hubrest.Target{DeviceID: "dev1"})
	if err != nil {
		t.Fatal(err)
	}
	raw := json.RawMessage(body[:len(body)-1]) // without the line's end
	want := hubrest.Twin{
		DeviceID:           "dev1",
		ETag:               "AAAAAAAAAAI=",
		DeviceETag:         "NDAzODk4OTIx",
		Status:             hubrest.Enabled,
		ConnectionState:    "Disconnected",
		AuthenticationType: hubrest.AuthSAS,
		Version:            3,
		Tags:               json.RawMessage(`{"z":1.10,"a":4503599627370495}`),
		Desired:            json.RawMessage(`{"username":"<A&B>","$metadata":{"$lastUpdated":"2020-07-28T22:17:23.785061Z","$lastUpdatedVersion":2},"$version":2}`),
		Reported:           json.RawMessage(`{ "$metadata": { "$lastUpdated": "2020-07-28T22:17:23.6756822Z" }, "$version": 1 }`),
		DesiredVersion:     2,
		ReportedVersion:    1,
		Raw:                raw,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Twin (-want +got):\n%s", diff)
	}
}

func TestTwinsWithoutSectionsAreReadToo(t *testing.T) {
	for _, in := range []string{`{"deviceId":"dev1"}`, `{"deviceId":"dev1","tags":null,"properties":{"desired":null,"reported":null}}`} {
		var got hubrest.Twin
		if err := json.Unmarshal([]byte(in), &got); err != nil {
			t.Fatal(err)
		}
		want := hubrest.Twin{DeviceID: "dev1", Raw: json.RawMessage(in)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
		if out, err := json.Marshal(got); err != nil || string(out) != in {
			t.Errorf("%s was written as %s, %v", in, out, err)
		}
	}
}
