package hubrest_test

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestMessagesBecomeTheseRequests(t *testing.T) {
	for _, tt := range []struct {
		name   string
		msg    hubrest.Message
		header map[string]string
	}{
		{"empty", hubrest.Message{}, map[string]string{"Content-Length": "0"}},
		{
			"with everything",
			hubrest.Message{
				Body: []byte("h\x00llo"), ContentType: "text/plain", ContentEncoding: "utf-8", MessageID: "m-1", CorrelationID: "c-1", UserID: "u-1", Ack: hubrest.AckFull,
				Expiry: time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Properties: map[string]string{"color": "blau, ö"},
			},
			map[string]string{
				"Content-Length": "5", "Content-Type": "text/plain", "Iothub-Messageid": "m-1", "Iothub-Correlationid": "c-1",
				"Iothub-Userid": "u-1", "Iothub-Contentencoding": "utf-8",
				"Iothub-Ack": "full", "Iothub-Expiry": "2026-01-02T02:04:05Z", "Iothub-App-Color": "blau, ö",
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
				rec.add(req)
				w.WriteHeader(http.StatusNoContent)
			})
			if err := c.SendMessage(t.Context(), "dev#1", tt.msg); err != nil {
				t.Fatal(err)
			}
			req := rec.seen[0]
			if got, want := req.Method+" "+req.RequestURI, "POST /devices/dev%231/messages/deviceBound?api-version=2021-04-12"; got != want {
				t.Errorf("%s, want %s", got, want)
			}
			header := map[string]string{}
			for name := range maps.Keys(req.Header) {
				switch name {
				case "Accept", "Accept-Encoding", "Authorization", "Request-Id", "User-Agent":
				default:
					header[name] = req.Header.Get(name)
				}
			}
			if diff := cmp.Diff(tt.header, header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			if rec.body[0] != string(tt.msg.Body) {
				t.Errorf("body %q, want %q", rec.body[0], tt.msg.Body)
			}
		})
	}
}

func TestAMessageIsNeverSentTwice(t *testing.T) {
	for _, step := range []string{"429", "503", "cut", "torn"} {
		var rec recorder
		c := newClient(t, misbehave(&rec, `{}`, step))
		if err := c.SendMessage(t.Context(), "dev1", hubrest.Message{}); err == nil || rec.count() != 1 {
			t.Errorf("after %s: %d requests, error %v", step, rec.count(), err)
		}
	}
}

func TestWhatHeadersCannotCarryNeverLeaves(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) { rec.add(req) })
	for _, m := range []hubrest.Message{
		{Properties: map[string]string{"a b": ""}},
		{Properties: map[string]string{"ö": ""}},
		{Properties: map[string]string{"a": "1\r\nAuthorization: no"}},
		{MessageID: "\x00"},
	} {
		if err := c.SendMessage(t.Context(), "dev1", m); err == nil {
			t.Errorf("SendMessage(%+v) went through", m)
		}
	}
	if err := c.DeleteDevice(t.Context(), "dev1", "a\nb"); err == nil {
		t.Error("an etag with a line break went through")
	}
	if n := rec.count(); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}

func TestFeedbackIsReadAndSettled(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		switch n := rec.add(req); {
		case n == 1:
			w.Header().Set("ETag", `"lock/1"`)
			io.WriteString(w, `[{"originalMessageId":"0987654321","enqueuedTimeUtc":"2015-07-28T16:24:48.789Z","statusCode":"Success","description":"Success","deviceId":"dev1","deviceGenerationId":"637345907161634714"}]`)
		case n == 4:
			w.WriteHeader(412)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	got, err := c.ReceiveFeedback(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := hubrest.FeedbackBatch{LockToken: "lock/1", Records: []hubrest.Feedback{{
		OriginalMessageID: "0987654321", EnqueuedTime: hubrest.Time{Time: time.Date(2015, 7, 28, 16, 24, 48, 789e6, time.UTC)},
		StatusCode: "Success", Description: "Success", DeviceID: "dev1", DeviceGenerationID: "637345907161634714",
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReceiveFeedback (-want +got):\n%s", diff)
	}
	if err := c.CompleteFeedback(t.Context(), got.LockToken); err != nil {
		t.Error(err)
	}
	if err := c.AbandonFeedback(t.Context(), got.LockToken); err != nil {
		t.Error(err)
	}
	if err := c.CompleteFeedback(t.Context(), got.LockToken); !errors.Is(err, hubrest.ErrPreconditionFailed) {
		t.Errorf("CompleteFeedback: %v, want ErrPreconditionFailed", err)
	}
	if b, err := c.ReceiveFeedback(t.Context()); err != nil || b.LockToken != "" || b.Records != nil {
		t.Errorf("ReceiveFeedback without feedback: %v, %v", b, err)
	}
	var sent []string
	for _, req := range rec.seen[1:3] {
		sent = append(sent, req.Method+" "+req.RequestURI)
	}
	const path = "/messages/serviceBound/feedback/lock%2F1"
	if diff := cmp.Diff([]string{"DELETE " + path + "?api-version=2021-04-12", "POST " + path + "/abandon?api-version=2021-04-12"}, sent); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}
