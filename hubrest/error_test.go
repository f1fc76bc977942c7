package hubrest_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

var sentinels = []error{
	hubrest.ErrNotFound, hubrest.ErrNotOnline, hubrest.ErrUnauthorized, hubrest.ErrTimedOut, hubrest.ErrPreconditionFailed, hubrest.ErrAlreadyExists,
}

func TestErrorsAreReadFromEveryEnvelope(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		header string // iothub-errorcode
		body   string
		want   hubrest.Error
		is     error
		text   string
	}{
		{
			name: "classic, device not found", status: 404, header: "DeviceNotFound",
			body: `{"Message":"ErrorCode:DeviceNotFound;dev1","ExceptionMessage":"Tracking ID:06e0221675514160850421f0b3b787a9-G:0-TimeStamp:10/24/2023 16:57:00"}`,
			want: hubrest.Error{Status: 404, Name: "DeviceNotFound", Message: "dev1", TrackingID: "06e0221675514160850421f0b3b787a9-G:0-TimeStamp:10/24/2023 16:57:00"},
			is:   hubrest.ErrNotFound,
			text: "the hub answered 404 DeviceNotFound: dev1",
		},
		{
			name: "classic without the header, words with a semicolon", status: 412,
			body: `{"Message":"ErrorCode:PreconditionFailed;Precondition failed: Device version did not match; existingVersion:1","ExceptionMessage":""}`,
			want: hubrest.Error{Status: 412, Name: "PreconditionFailed", Message: "Precondition failed: Device version did not match; existingVersion:1"},
			is:   hubrest.ErrPreconditionFailed,
			text: "the hub answered 412 PreconditionFailed: Precondition failed: Device version did not match; existingVersion:1",
		},
		{
			name: "the header's name goes before the body's", status: 401, header: "IotHubUnauthorizedAccess",
			body: `{"Message":"ErrorCode:SomethingElse;Unauthorized","ExceptionMessage":"Tracking ID:1"}`,
			want: hubrest.Error{Status: 401, Name: "IotHubUnauthorizedAccess", Message: "Unauthorized", TrackingID: "1"},
			is:   hubrest.ErrUnauthorized,
			text: "the hub answered 401 IotHubUnauthorizedAccess: Unauthorized",
		},
		{
			name: "nested, device not online", status: 404, header: "DeviceNotOnline",
			body: `{"Message":"{\"errorCode\":404103,\"trackingId\":\"aa761f96-TimeStamp:03/14/2024 09:54:49\",\"message\":\"Timed out waiting for device to connect.\",\"info\":{\"timeout\":\"00:00:00\"},\"timestampUtc\":\"2024-03-14T09:54:49.6536567Z\"}","ExceptionMessage":""}`,
			want: hubrest.Error{Status: 404, Code: 404103, Name: "DeviceNotOnline", Message: "Timed out waiting for device to connect.", TrackingID: "aa761f96-TimeStamp:03/14/2024 09:54:49"},
			is:   hubrest.ErrNotOnline,
			text: "the hub answered 404 DeviceNotOnline (404103): Timed out waiting for device to connect.",
		},
		{
			name: "nested, known by the number alone", status: 404,
			body: `{"Message":"{\"errorCode\":404104,\"message\":\"gone\"}","ExceptionMessage":""}`,
			want: hubrest.Error{Status: 404, Code: 404104, Message: "gone"},
			is:   hubrest.ErrNotOnline,
			text: "the hub answered 404 Not Found (404104): gone",
		},
		{
			name: "nested, the device was too slow", status: 504, header: "GatewayTimeout",
			body: `{"Message":"{\"errorCode\":504101,\"trackingId\":\"0\",\"message\":\"Timed out waiting for the response from device.\",\"info\":{},\"timestampUtc\":\"2024-01-01T00:00:00Z\"}","ExceptionMessage":""}`,
			want: hubrest.Error{Status: 504, Code: 504101, Name: "GatewayTimeout", Message: "Timed out waiting for the response from device.", TrackingID: "0"},
			is:   hubrest.ErrTimedOut,
			text: "the hub answered 504 GatewayTimeout (504101): Timed out waiting for the response from device.",
		},
		{
			name: "flat", status: 409, header: "ModuleAlreadyExistsOnDevice",
			body: `{"errorCode":409301,"message":"Device dev1 in IotHub myhub already contains Module m1.","trackingId":"t","timestampUtc":"2024-01-01T00:00:00Z"}`,
			want: hubrest.Error{Status: 409, Code: 409301, Name: "ModuleAlreadyExistsOnDevice", Message: "Device dev1 in IotHub myhub already contains Module m1.", TrackingID: "t"},
			is:   hubrest.ErrAlreadyExists,
			text: "the hub answered 409 ModuleAlreadyExistsOnDevice (409301): Device dev1 in IotHub myhub already contains Module m1.",
		},
		{
			name: "flat, the number a string", status: 400,
			body: `{"errorCode":"400004","message":"bad"}`,
			want: hubrest.Error{Status: 400, Code: 400004, Message: "bad"},
			text: "the hub answered 400 Bad Request (400004): bad",
		},
		{
			name: "flat, the number a name, and members of the wrong type", status: 400,
			body: `{"errorCode":"ArgumentInvalid","message":"bad","trackingId":{"a":1},"ExceptionMessage":null}`,
			want: hubrest.Error{Status: 400, Name: "ArgumentInvalid", Message: "bad"},
			text: "the hub answered 400 ArgumentInvalid: bad",
		},
		{
			name: "empty", status: 403, want: hubrest.Error{Status: 403}, text: "the hub answered 403 Forbidden",
		},
		{
			name: "not JSON", status: 407, body: "<html>\r\n<body>\tproxy says\x00 no</body>\xff",
			want: hubrest.Error{Status: 407, Message: "<html> <body> proxy says no</body>"},
			text: "the hub answered 407 Proxy Authentication Required: <html> <body> proxy says no</body>",
		},
		{
			name: "JSON, but no object", status: 400, body: `["x"]`, want: hubrest.Error{Status: 400}, text: "the hub answered 400 Bad Request",
		},
		{
			name: "a redirect", status: 302, body: "moved",
			want: hubrest.Error{Status: 302, Message: "a redirect, which IoT Hub never sends; is this the hub?"},
			text: "the hub answered 302 Found: a redirect, which IoT Hub never sends; is this the hub?",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls int
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
				calls++
				if tt.header != "" {
					w.Header().Set("iothub-errorcode", tt.header)
				}
				w.Header().Set("x-ms-request-id", "r1")
				w.Header().Set("Location", "/devices/elsewhere")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			})
			_, err := c.InvokeMethod(t.Context(), hubrest.Target{DeviceID: "dev1"}, hubrest.Method{Name: "reboot"})
			var got *hubrest.Error
			if !errors.As(err, &got) {
				t.Fatalf("InvokeMethod: %v, want an *Error", err)
			}
			tt.want.RequestID = "r1"
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if want := `call reboot on device "dev1": ` + tt.text; err.Error() != want {
				t.Errorf("text %q, want %q", err, want)
			}
			for _, s := range sentinels {
				if got, want := errors.Is(err, s), s == tt.is; got != want {
					t.Errorf("errors.Is(err, %v) = %t, want %t", s, got, want)
				}
			}
			if calls != 1 {
				t.Errorf("%d requests were sent, want 1", calls)
			}
		})
	}
}

func TestAHugeErrorBodyIsCut(t *testing.T) {
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(400)
		for range 1 << 10 {
			io.WriteString(w, strings.Repeat("no ", 1<<10))
		}
	})
	_, err := c.Device(t.Context(), "dev1")
	var refusal *hubrest.Error
	if !errors.As(err, &refusal) || len(refusal.Message) > 1000 {
		t.Errorf("Device: %d bytes of error: %.80v", len(fmt.Sprint(err)), err)
	}
}

func FuzzError(f *testing.F) {
	f.Add(404, "DeviceNotFound", []byte(`{"Message":"ErrorCode:DeviceNotFound;dev1","ExceptionMessage":"Tracking ID:1"}`))
	f.Add(504, "", []byte(`{"Message":"{\"errorCode\":504101,\"message\":\"{\\\"message\\\":\\\"x\\\"}\"}"}`))
	f.Add(500, "", []byte("<html>\xff\x00"))
	f.Fuzz(func(t *testing.T, status int, name string, body []byte) {
		e := hubrest.ParseError(status, http.Header{"Iothub-Errorcode": {name}}, body)
		if e.Status != status || name != "" && e.Name != name {
			t.Errorf("status %d, name %q became %d, %q", status, name, e.Status, e.Name)
		}
		if len(e.Message) > 4*510 || strings.ContainsFunc(e.Message, unicode.IsControl) {
			t.Errorf("message of %d bytes: %q", len(e.Message), e.Message)
		}
	})
}
