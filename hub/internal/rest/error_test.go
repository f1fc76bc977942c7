package rest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
)

func TestEnvelopes(t *testing.T) {
	id := words.RequestID{0xaa, 0x76, 15: 0x8c}
	now := time.Date(2024, 3, 14, 9, 54, 49, 653665700, time.UTC)
	const tracking = "aa76000000000000000000000000008c-G:0-TimeStamp:03/14/2024 09:54:49"
	nested := func(code, message, info string) string {
		return `{"Message":"{\"errorCode\":` + code + `,\"trackingId\":\"` + tracking + `\",\"message\":\"` + message +
			`\",\"info\":` + info + `,\"timestampUtc\":\"2024-03-14T09:54:49.6536657Z\"}","ExceptionMessage":""}`
	}
	waited := *hub.ErrDeviceNotOnline
	waited.Timeout, waited.Text = 5*time.Minute+7*time.Second, "x"
	for name, tt := range map[string]struct{ got, want string }{
		"classic":              {string(classicEnvelope(hub.ErrDeviceNotFound.With("<dev1>"), id, now)), `{"Message":"ErrorCode:DeviceNotFound;<dev1>","ExceptionMessage":"Tracking ID:` + tracking + `"}`},
		"not online":           {string(nestedEnvelope(hub.ErrDeviceNotOnline.With("x"), id, now)), nested("404103", "x", `{\"timeout\":\"00:00:00\"}`)},
		"not online in time":   {string(nestedEnvelope(&waited, id, now)), nested("404103", "x", `{\"timeout\":\"00:05:07\"}`)},
		"no answer in time":    {string(nestedEnvelope(hub.ErrGatewayTimeout, id, now)), nested("504101", "Timed out waiting for the response from device.", `{}`)},
		"any other":            {string(nestedEnvelope(hub.ErrArgumentInvalid.With("y"), id, now)), nested("400004", "y", `null`)},
		"an hour and a second": {clock(time.Hour + time.Second), "01:00:01"},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
