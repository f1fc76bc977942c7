package hubrest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

// replay returns a client whose hub always answers with a file below testdata.
func replay(t *testing.T, file string) (*hubrest.Client, []byte) {
	t.Helper()
	body, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, func(w http.ResponseWriter, req *http.Request) { w.Write(body) }), body
}

func TestIdentitiesAreReadAsTheServiceWritesThem(t *testing.T) {
	c, _ := replay(t, "identity.json")
	got, err := c.Device(t.Context(), "dev1")
	if err != nil {
		t.Fatal(err)
	}
	want := hubrest.Device{
		DeviceID:                  "dev1",
		GenerationID:              "637345907161634714",
		ETag:                      "MjQxNzkxMTk4",
		ConnectionState:           "Disconnected",
		Status:                    hubrest.Enabled,
		LastActivityTime:          hubrest.Time{Time: time.Date(2020, 7, 28, 22, 17, 23, 675682200, time.UTC)},
		CloudToDeviceMessageCount: 2,
		Authentication: hubrest.Authentication{
			SymmetricKey: hubrest.SymmetricKey{PrimaryKey: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},
			Type:         hubrest.AuthSAS,
		},
		Capabilities: hubrest.Capabilities{IoTEdge: true},
		DeviceScope:  "ms-azure-iot-edge://dev1-637345907161634714",
		ParentScopes: []string{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Device (-want +got):\n%s", diff)
	}
}

func TestTimesAreReadInEverySpelling(t *testing.T) {
	at := time.Date(2020, 7, 28, 22, 17, 23, 0, time.UTC)
	for _, tt := range []struct {
		name, in string
		want     time.Time
	}{
		{"seven digits", `"2020-07-28T22:17:23.6756822Z"`, at.Add(675682200)},
		{"none", `"2020-07-28T22:17:23Z"`, at},
		{"without a zone", `"2020-07-28T22:17:23.5"`, at.Add(500 * time.Millisecond)},
		{"in another zone", `"2020-07-29T00:17:23+02:00"`, at},
		{"escaped", `"2020-07-28T22:17:23\u005a"`, at},
		{"as in old error texts", `"07/28/2020 22:17:23"`, at},
		{"never", `"0001-01-01T00:00:00Z"`, time.Time{}},
		{"never, without a zone", `"0001-01-01T00:00:00"`, time.Time{}},
		{"empty", `""`, time.Time{}},
		{"null", `null`, time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := hubrest.Time{Time: at}
			if err := json.Unmarshal([]byte(tt.in), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Time); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.in, diff)
			}
		})
	}
	for _, in := range []string{`"yesterday"`, `7`, `{}`} {
		if err := json.Unmarshal([]byte(in), new(hubrest.Time)); err == nil {
			t.Errorf("%s was taken for a time", in)
		}
	}
}

func FuzzTime(f *testing.F) {
	f.Add([]byte(`"2020-07-28T22:17:23.6756822Z"`))
	f.Add([]byte(`"01/02/2006 15:04:05"`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var first, second hubrest.Time
		if first.UnmarshalJSON(in) != nil {
			return
		}
		b, err := json.Marshal(first)
		if err != nil {
			return // years beyond 9999 by way of the zone
		}
		if err := json.Unmarshal(b, &second); err != nil || !first.Equal(second.Time) {
			t.Errorf("%s became %s, then %v (%v)", in, b, second, err)
		}
	})
}

func TestMethodAnswersThatAreNotJSON(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       *hubrest.NotJSONError
		text       string
	}{
		{"of IoT Hub", `{"status":200,"payload":{'filename': 'a}'}}`, &hubrest.NotJSONError{Status: 200, Payload: []byte(`{'filename': 'a}'}`)},
			`call reboot on device "dev1": it answered with status 200 and what is not JSON: "{'filename': 'a}'}"`},
		{"a text over lines", "{ \"status\" : -1 , \"payload\" : a\nb }\n", &hubrest.NotJSONError{Status: -1, Payload: []byte("a\nb")},
			`call reboot on device "dev1": it answered with status -1 and what is not JSON: "a\nb"`},
		{"much", `{"status":200,"payload":` + strings.Repeat("x", 65) + `}`, &hubrest.NotJSONError{Status: 200, Payload: []byte(strings.Repeat("x", 65))},
			`call reboot on device "dev1": it answered with status 200 and what is not JSON: "` + strings.Repeat("x", 64) + `"...`},
		{"of somebody else", `<html>`, nil, `call reboot on device "dev1": the hub's answer (200) is not as documented: invalid character '<' looking for beginning of value`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, tt.body) })
			_, err := c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: "dev1"}, hubrest.Method{Name: "reboot"})
			got, _ := errors.AsType[*hubrest.NotJSONError](err)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("InvokeMethod (-want +got):\n%s", diff)
			}
			if err == nil || err.Error() != tt.text {
				t.Errorf("error %v\nwant  %s", err, tt.text)
			}
		})
	}
}

func TestMethodAnswersKeepTheDevicesJSON(t *testing.T) {
	for _, tt := range []struct {
		name, body, want string
	}{
		{"an object", `{"status":501,"payload":{"n":12345678901234567890, "s":"<"}}`, `{"n":12345678901234567890, "s":"<"}`},
		{"null", `{"status":501,"payload":null}`, `null`},
		{"nothing", `{"status":501}`, `null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) { io.WriteString(w, tt.body) })
			got, err := c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: "dev1"}, hubrest.Method{Name: "reboot"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hubrest.MethodAnswer{Status: 501, Payload: json.RawMessage(tt.want)}, got); diff != "" {
				t.Errorf("InvokeMethod (-want +got):\n%s", diff)
			}
		})
	}
}
