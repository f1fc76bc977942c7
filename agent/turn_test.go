//go:build unix

package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/hub/hubtest"
)

func TestOneThingAtATimeChangesTheMachine(t *testing.T) {
	h := hubtest.New(t)
	f, dir := serveFirmware(t, nil), t.TempDir()
	gate := filepath.Join(dir, "gate")
	makeFIFO(t, gate)
	held := func(what string) agent.Command {
		return script("echo " + what + " >" + gate + "; read code <" + gate + "; exit $code")
	}
	release := func(code string) {
		t.Helper()
		if err := os.WriteFile(gate, []byte(code+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := connectPump(t, h, agent.Options{
		Folder: filepath.Join(dir, "state"), RebootCommand: held("rebooting").Script,
		FactoryReset: held("resetting"), Update: agent.Update{Command: held("installing")},
	})
	const busy = `409 {"message":"the device is being updated, reset or rebooted"}`
	refused := func(method, payload, want string) {
		t.Helper()
		if got := call(t, h, method, payload); got != want {
			t.Errorf("%s is answered %s, want %s", method, got, want)
		}
	}

	call(t, h, "factoryReset", `{}`)
	wantFile(t, gate, "resetting\n")
	refused("reboot", `{}`, `409 {"Response":"The device is being updated or reset"}`)
	refused("firmwareUpdate", f.request("1.0"), busy)
	desire(t, h, `{"firmware":`+f.request("2.0")+`}`)
	p.awaitFirmware("verifying >2.0 () ac 202 av 2") // and no further
	release("0")

	wantFile(t, gate, "installing\n")
	refused("reboot", `{}`, `409 {"Response":"The device is being updated or reset"}`)
	refused("factoryReset", `{}`, busy)
	release("102") // asks for a reboot

	wantFile(t, gate, "rebooting\n")
	p.awaitFirmware("rebooting >2.0 () ac 202 av 2")
	refused("reboot", `{}`, `409 {"Response":"The device is already rebooting"}`)
	refused("factoryReset", `{}`, busy)
	refused("firmwareUpdate", f.request("3.0"), busy)
	release("1") // the reboot fails
	p.awaitReportedThat("reboot.outcome", "commandFailed", func(got string) bool { return got == `"commandFailed"` })

	for range 2 { // neither a failure nor a success keeps the turn
		call(t, h, "factoryReset", `{}`)
		wantFile(t, gate, "resetting\n")
		release("1")
		p.awaitReportedThat("factoryReset.status", "error", func(got string) bool { return got == `"error"` })
	}
	if got := call(t, h, "reboot", `{}`); !strings.HasPrefix(got, "200 ") {
		t.Errorf("reboot is answered %s", got)
	}
	wantFile(t, gate, "rebooting\n")
}
