package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/store"
)

func TestEnvelopes(t *testing.T) {
	id := requestID{0xaa, 0x76, 15: 0x8c}
	now := time.Date(2024, 3, 14, 9, 54, 49, 653665700, time.UTC)
	const tracking = "aa76000000000000000000000000008c-G:0-TimeStamp:03/14/2024 09:54:49"
	nested := func(code, message, info string) string {
		return `{"Message":"{\"errorCode\":` + code + `,\"trackingId\":\"` + tracking + `\",\"message\":\"` + message +
			`\",\"info\":` + info + `,\"timestampUtc\":\"2024-03-14T09:54:49.6536657Z\"}","ExceptionMessage":""}`
	}
	waited := *ErrDeviceNotOnline
	waited.Timeout, waited.Text = 5*time.Minute+7*time.Second, "x"
	for name, tt := range map[string]struct{ got, want string }{
		"classic":              {string(classicEnvelope(ErrDeviceNotFound.with("<dev1>"), id, now)), `{"Message":"ErrorCode:DeviceNotFound;<dev1>","ExceptionMessage":"Tracking ID:` + tracking + `"}`},
		"not online":           {string(nestedEnvelope(ErrDeviceNotOnline.with("x"), id, now)), nested("404103", "x", `{\"timeout\":\"00:00:00\"}`)},
		"not online in time":   {string(nestedEnvelope(&waited, id, now)), nested("404103", "x", `{\"timeout\":\"00:05:07\"}`)},
		"no answer in time":    {string(nestedEnvelope(ErrGatewayTimeout, id, now)), nested("504101", "Timed out waiting for the response from device.", `{}`)},
		"any other":            {string(nestedEnvelope(ErrArgumentInvalid.with("y"), id, now)), nested("400004", "y", `null`)},
		"an hour and a second": {clock(time.Hour + time.Second), "01:00:01"},
	} {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRefusalOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want *Error
	}{
		{ErrDeviceNotFound, ErrDeviceNotFound},
		{fmt.Errorf("wrapped: %w", ErrModuleNotFound.with("m")), ErrModuleNotFound},
		{fmt.Errorf("write: %w", store.ErrFull), ErrServiceUnavailable},
		{store.ErrClosed, ErrServiceUnavailable},
		{context.Canceled, ErrServiceUnavailable},
		{errors.New("surprise"), ErrServer},
	} {
		if got := refusalOf(tt.err); !errors.Is(got, tt.want) || got.Status != tt.want.Status {
			t.Errorf("refusalOf(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

// SDKs recognise an error by its status, number and name together, and the
// Node SDK needs a text besides.
func TestErrorTable(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile(`&Error\{Status: (\d+), Code: (\d+), Name: "(\w+)", Text: "[^;"]+"\}`).FindAllSubmatch(source, -1)
	if want := bytes.Count(source, []byte("&Error{")); len(rows) != want {
		t.Errorf("%d of %d rows have a status, a number, a name and a text without ;", len(rows), want)
	}
	seen := make(map[string]bool)
	for _, row := range rows {
		status, code, name := string(row[1]), string(row[2]), string(row[3])
		if !strings.HasPrefix(code, status) || len(code) != 6 {
			t.Errorf("%s: number %s with status %s", name, code, status)
		}
		if seen[code] || seen[name] {
			t.Errorf("%s, %s occurs twice", name, code)
		}
		seen[code], seen[name] = true, true
	}
}
