package hubrest_test

import (
	"errors"
	"testing"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

func TestResetToASeed(t *testing.T) {
	hubtest.OneNode(t, "it needs test controls")
	h := hubtest.New(t)
	c := newHubClient(t, h, "iothubowner")
	if err := c.ResetTo(t.Context(), []byte("devices:\n- deviceId: d1\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Device(t.Context(), "d1"); err != nil {
		t.Error(err)
	}
	err := c.ResetTo(t.Context(), []byte("devices:\n- deviceid: d2\n"))
	if refused, ok := errors.AsType[*hubrest.Error](err); !ok || refused.Status != 400 || refused.Message != "line 2: field deviceid not found" {
		t.Errorf("a seed with a mistake: %v", err)
	}
	if _, err := c.Device(t.Context(), "d1"); err != nil {
		t.Errorf("it has changed the hub: %v", err)
	}
	if err := c.ResetTo(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Device(t.Context(), "d1"); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("reset to nothing, there is d1: %v", err)
	}
}
