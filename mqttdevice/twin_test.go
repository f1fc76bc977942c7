package mqttdevice

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

// exchange runs call, and answers the request it makes with the status, query and body given.
func exchange(t *testing.T, call func(*Client), status, query, body string) *packets.PublishPacket {
	t.Helper()
	var request *packets.PublishPacket
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, far, _ := connected(t, p, nil)
		defer c.Close()
		done := make(chan struct{})
		go func() { defer close(done); call(c) }()
		request = next[*packets.PublishPacket](far)
		_, rid, _ := strings.Cut(request.TopicName, "$rid=")
		far.publish("$iothub/twin/res/200/?$rid=other", "{}") // nobody's
		far.publish("$iothub/twin/res/"+status+"/?$rid="+rid+query, body)
		far.publish("$iothub/twin/res/"+status+"/?$rid="+rid+query, body) // a double
		<-done
	})
	return request
}

func TestTwin(t *testing.T) {
	tests := []struct {
		name    string
		status  string
		body    string
		want    Twin
		wantErr string
	}{
		{
			name: "a twin", status: "200",
			body: `{"desired":{"telemetry":{"every":"5m"},"$version":12},"reported":{"level":55.0,"$version":123}}`,
			want: Twin{Desired: raw(`{"telemetry":{"every":"5m"}}`), DesiredVersion: 12, Reported: raw(`{"level":55.0}`), ReportedVersion: 123},
		},
		{
			name: "a new twin", status: "200",
			body: `{"desired":{"$version":1},"reported":{"$version":1}}`,
			want: Twin{Desired: raw(`{}`), DesiredVersion: 1, Reported: raw(`{}`), ReportedVersion: 1},
		},
		{name: "no JSON", status: "200", body: `x`, wantErr: "invalid character"},
		{name: "no sections", status: "200", body: `{}`, wantErr: "desired"},
		{name: "no version", status: "200", body: `{"desired":{"$version":1},"reported":{}}`, wantErr: "reported: no $version"},
		{name: "a refusal", status: "429", body: `{"errorCode":429001,"trackingId":"t","message":"slower"}`, wantErr: "429 (429001): slower"},
		{name: "a refusal without words", status: "500", wantErr: "the hub answered 500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request := exchange(t, func(c *Client) {
				got, err := c.Twin(context.Background())
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("Twin (-want +got):\n%s", diff)
				}
				checkError(t, err, tt.wantErr)
			}, tt.status, "", tt.body)
			if !strings.HasPrefix(request.TopicName, "$iothub/twin/GET/?$rid=") || len(request.Payload) > 0 || request.Qos != 0 {
				t.Errorf("request %v", request)
			}
		})
	}
}

func TestPatchReported(t *testing.T) {
	tests := []struct {
		name    string
		patch   any
		sent    string
		status  string
		query   string
		body    string
		want    int64
		wantErr string
	}{
		{name: "a map", patch: map[string]any{"a": 1, "b": nil}, sent: `{"a":1,"b":null}`, status: "204", query: "&$version=124", want: 124},
		{name: "JSON", patch: raw(`{"z":1.50,"a":2}`), sent: `{"z":1.50,"a":2}`, status: "204", query: "&$version=2", want: 2},
		{
			name: "a patch the hub refuses", patch: raw(`{"a":[null]}`), sent: `{"a":[null]}`, status: "400",
			body:    `{"errorCode":400004,"trackingId":"x","message":"Value of Property or Tag cannot be null."}`,
			wantErr: "400 (400004): Value of Property or Tag cannot be null.",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request := exchange(t, func(c *Client) {
				got, err := c.PatchReported(context.Background(), tt.patch)
				if got != tt.want {
					t.Errorf("version is %d, want %d", got, tt.want)
				}
				checkError(t, err, tt.wantErr)
			}, tt.status, tt.query, tt.body)
			if diff := cmp.Diff(tt.sent, string(request.Payload)); diff != "" {
				t.Errorf("patch sent (-want +got):\n%s", diff)
			}
			if !strings.HasPrefix(request.TopicName, "$iothub/twin/PATCH/properties/reported/?$rid=") {
				t.Errorf("patch sent to %s", request.TopicName)
			}
		})
	}
}

func TestPatchReportedRefusesWhatIsNoObject(t *testing.T) {
	c, _ := device(t, nil, Options{})
	for _, patch := range []any{nil, 1, []int{1}, "x", raw("{"), make(chan int)} {
		if _, err := c.PatchReported(t.Context(), patch); err == nil || errors.Is(err, ErrNotConnected) {
			t.Errorf("PatchReported(%v) returned %v, want an error about the patch", patch, err)
		}
	}
}

func TestHubErrorHasItsParts(t *testing.T) {
	err := hubError(412, []byte(`{"errorCode":412001,"trackingId":"t-1","message":"m","timestampUtc":"x"}`))
	var got *Error
	if !errors.As(err, &got) {
		t.Fatalf("error is a %T", err)
	}
	if diff := cmp.Diff(Error{Status: 412, Code: 412001, Message: "m", TrackingID: "t-1"}, *got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func raw(s string) json.RawMessage { return json.RawMessage(s) }

// checkError wants an error that contains want, or none if want is empty.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want %q", err, want)
	}
}
