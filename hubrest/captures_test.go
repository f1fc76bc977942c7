package hubrest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hubrest"
)

// A capture is an exchange of the Python service SDK with a hub that satisfied it.
type capture struct {
	Request   string // method and path
	IfMatch   string
	Status    int
	ErrorCode string // the header of the answer
	Body      string // of the answer
}

// call makes the request of a capture with c.
func (x capture) call(ctx context.Context, c *hubrest.Client) error {
	method, path, _ := strings.Cut(x.Request, " ")
	s := strings.Split(path, "/")[1:]
	var t hubrest.Target
	if len(s) > 1 {
		t.DeviceID = s[1]
	}
	if len(s) > 3 {
		t.ModuleID = s[3]
	}
	shape := method + " " + s[0]
	switch {
	case len(s) == 2 && s[0] == "statistics":
		shape += "/" + s[1]
	case s[len(s)-1] == "methods":
		shape += " method"
	case s[len(s)-1] == "modules":
		shape += " modules"
	case len(s) == 1:
		shape += " all"
	case t.ModuleID != "" && s[0] == "devices":
		shape += " module"
	}
	var err error
	switch shape {
	case "GET devices":
		_, err = c.Device(ctx, t.DeviceID)
	case "PUT devices":
		if x.IfMatch == "" {
			_, err = c.CreateDevice(ctx, hubrest.Device{DeviceID: t.DeviceID})
		} else {
			_, err = c.UpdateDevice(ctx, hubrest.Device{DeviceID: t.DeviceID, ETag: x.IfMatch})
		}
	case "DELETE devices":
		err = c.DeleteDevice(ctx, t.DeviceID, x.IfMatch)
	case "GET devices all":
		_, err = c.Devices(ctx, 0)
	case "POST devices all":
		_, err = c.Bulk(ctx, nil)
	case "GET devices modules":
		_, err = c.Modules(ctx, t.DeviceID)
	case "GET devices module":
		_, err = c.Module(ctx, t)
	case "PUT devices module":
		_, err = c.CreateModule(ctx, hubrest.Module{DeviceID: t.DeviceID, ModuleID: t.ModuleID})
	case "DELETE devices module":
		err = c.DeleteModule(ctx, t, x.IfMatch)
	case "GET statistics/devices":
		_, err = c.DeviceStatistics(ctx)
	case "GET statistics/service":
		_, err = c.ConnectedDevices(ctx)
	case "GET twins":
		_, err = c.Twin(ctx, t)
	case "PATCH twins":
		_, err = c.PatchTwin(ctx, t, hubrest.TwinChange{ETag: x.IfMatch})
	case "PUT twins":
		_, err = c.ReplaceTwin(ctx, t, hubrest.TwinChange{ETag: x.IfMatch})
	case "POST twins method":
		_, err = c.InvokeMethod(ctx, t, hubrest.Method{Name: "x"})
	default:
		err = errors.New("no call for " + shape)
	}
	return err
}

func TestCapturedExchangesWorkWithThisClient(t *testing.T) {
	b, err := os.ReadFile("testdata/captures.json")
	if err != nil {
		t.Fatal(err)
	}
	var captures []capture
	if err := json.Unmarshal(b, &captures); err != nil {
		t.Fatal(err)
	}
	for _, x := range captures {
		t.Run(x.Request+" "+http.StatusText(x.Status), func(t *testing.T) {
			var rec recorder
			c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
				rec.add(req)
				if x.ErrorCode != "" {
					w.Header().Set("iothub-errorcode", x.ErrorCode)
				}
				w.WriteHeader(x.Status)
				io.WriteString(w, x.Body)
			})
			err := x.call(t.Context(), c)
			if rec.count() != 1 {
				t.Fatalf("%d requests, error %v", rec.count(), err)
			}
			if got := rec.seen[0].Method + " " + rec.seen[0].URL.EscapedPath(); got != x.Request {
				t.Errorf("request %s, want %s", got, x.Request)
			}
			// Where the SDK sends no condition, neither does creating; the rest says "whatever is there".
			if got := rec.seen[0].Header.Get("If-Match"); x.IfMatch != "" && strings.Trim(got, `"`) != strings.Trim(x.IfMatch, `"`) {
				t.Errorf("If-Match %s, want %s", got, x.IfMatch)
			}
			var refusal *hubrest.Error
			switch {
			case x.Status < 300 && err != nil:
				t.Error(err)
			case x.Status >= 300 && !(errors.As(err, &refusal) && refusal.Status == x.Status && refusal.Name == x.ErrorCode && refusal.Message != ""):
				t.Errorf("error %+v, want %d %s", err, x.Status, x.ErrorCode)
			}
		})
	}
}
