//go:build unix

package agent_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// call calls a direct method of the device pump.
func call(t *testing.T, h *hubtest.Hub, name, payload string) string {
	t.Helper()
	r, err := h.InvokeMethod(t.Context(), pump, hub.MethodCall{Name: name, Payload: json.RawMessage(payload), ResponseTimeout: time.Minute})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(r.Status, " ", string(r.Payload))
}

func makeFIFO(t *testing.T, name string) {
	t.Helper()
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDirectMethodByCommand(t *testing.T) {
	h := hubtest.New(t)
	largest := `"` + strings.Repeat("x", 128<<10-2) + `"`
	connectPump(t, h, agent.Options{OnMethod: map[string]agent.Command{
		"echo":    {Args: []string{"cat"}},
		"who":     script(`printf '"%s %s %s"' "$IOTDM_DEVICE_ID" "$IOTDM_METHOD" "$IOTDM_MODULE_ID"`),
		"nothing": script("exit 0"),
		"fail":    script(`echo '{"limit": 9}'; echo too fast >&2; exit 65`),
		"crash":   script("kill -KILL $$"),
		"missing": {Args: []string{"no-such-command"}},
		"hang":    {Script: "sleep 1000", Timeout: 50 * time.Millisecond},
		"flood":   {Args: []string{"yes"}},
		"reboot":  script("echo 7"),
	}})
	for _, tt := range []struct{ method, payload, want string }{
		{"echo", `{"a":[1,"ü"]}`, `200 {"a":[1,"ü"]}`},
		{"echo", largest, "200 " + largest},
		{"who", `{}`, `200 "pump who "`},
		{"nothing", largest, `200 null`},
		{"fail", `{}`, `400 {"message":"the command failed","exitCode":65,"stderr":"too fast\n","output":{"limit":9}}`},
		{"crash", `{}`, `500 {"message":"signal: killed"}`},
		{"missing", `{}`, `500 {"message":"the command \"no-such-command\" is not found in PATH"}`},
		{"hang", `{}`, `504 {"message":"the command did not end in time and was killed (after 50ms)"}`},
		{"flood", `{}`, `500 {"message":"the command printed too much and was killed (more than 128 KiB)"}`},
		{"reboot", `{}`, `200 7`},
		{"unknown", `{}`, `404 {"Response":"Unknown method"}`},
	} {
		if got := call(t, h, tt.method, tt.payload); got != tt.want {
			t.Errorf("%s(%.40s) is %.200s, want %.200s", tt.method, tt.payload, got, tt.want)
		}
	}
}

func TestDirectMethodWhileItsCommandRuns(t *testing.T) {
	h := hubtest.New(t)
	gate, release := filepath.Join(t.TempDir(), "gate"), filepath.Join(t.TempDir(), "release")
	makeFIFO(t, gate)
	makeFIFO(t, release)
	wait := "echo started >" + gate + "; cat " + release + " >&2 && echo 1"
	p := connectPump(t, h, agent.Options{OnMethod: map[string]agent.Command{
		"alone":    script(wait),
		"together": {Script: wait, Concurrent: true},
	}})
	answers := make(chan string, 2)
	go func() { answers <- call(t, h, "alone", "{}") }()
	wantFile(t, gate, "started\n")
	if got, want := call(t, h, "alone", "{}"), `409 {"message":"the command is still running for an earlier call"}`; got != want {
		t.Errorf("a second call is answered %s, want %s", got, want)
	}
	open(t, release)
	if got := <-answers; got != "200 1" {
		t.Errorf("the first call is answered %s", got)
	}
	for range 2 {
		go func() { answers <- call(t, h, "together", "{}") }()
		wantFile(t, gate, "started\n")
	}
	p.Close() // while both run
	for range 2 {
		if got, want := <-answers, `503 {"message":"the device was stopped while the command ran"}`; got != want {
			t.Errorf("a call is answered %s, want %s", got, want)
		}
	}
}
