package agent

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

// A caller who got no answer must not have the machine reset all the same.
func TestResetWhoseAnswerCannotBeSent(t *testing.T) {
	m := newMachine(t, hubtest.New(t))
	m.opt.FactoryReset = Command{Args: []string{"reset"}}
	a, err := New(m.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	f := &factoryReset{agent: a, file: filepath.Join(t.TempDir(), "reset.json"), asked: make(chan json.RawMessage, 1)}
	for range 2 {
		r := f.answer(t.Context(), mqttdevice.Method{Name: resetMethod})
		if r.Status != 202 {
			t.Fatalf("answered with %d", r.Status)
		}
		r.Sent(errors.New("connection lost"))
	}
	if stored, err := readJSON[resetRecord](f.file); err != nil || stored.Status != resetFailed || !strings.HasSuffix(stored.Detail, "connection lost") {
		t.Errorf("on disk: %+v (%v)", stored, err)
	}
	if len(f.asked) != 0 || a.turn.taken() {
		t.Error("the reset goes on")
	}
}
