//go:build unix

package agent_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// What has failed may have left anything: the version before it is installed again when that is asked for.
func TestUpdateBackToWhatWasThere(t *testing.T) {
	h := hubtest.New(t)
	f := serveFirmware(t, nil)
	p := connectPump(t, h, agent.Options{Folder: t.TempDir(), Update: agent.Update{
		Version: "1.0", Command: script(`[ "$IOTDM_UPDATE_VERSION" = 1.0 ]`),
	}})
	call(t, h, "firmwareUpdate", f.request("2.0"))
	p.awaitFirmware("error 1.0>2.0 (the update command failed: exit status 1)")
	for _, want := range []string{
		`202 {"message":"the update to version 1.0 has begun"}`,
		`200 {"message":"version 1.0 is installed already"}`,
	} {
		if got, _ := callUpdate(t, h, f.request("1.0")); got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		p.awaitReportedThat("firmware.fwUpdateStatus", "current", func(got string) bool { return got == `"current"` })
	}
}

// The agent was killed when the package had its name, and the record did not say so yet.
func TestUpdateGoesOnWithARenamedPackage(t *testing.T) {
	h := hubtest.New(t)
	f, dir := serveFirmware(t, nil), t.TempDir()
	state, installed := filepath.Join(dir, "state"), filepath.Join(dir, "app")
	opt := agent.Options{Folder: state, Update: agent.Update{Command: installer(installed)}}
	p := connectPump(t, h, opt)
	call(t, h, "firmwareUpdate", f.request("2.0"))
	p.awaitFirmware("current 2.0> ()")
	p.Close()

	record := `{"version":"2.0","phase":"verifying","request":` + f.request("3.0") + `}`
	err := os.WriteFile(filepath.Join(state, "update.json"), []byte(record), 0o600)
	if err == nil {
		err = os.MkdirAll(filepath.Join(state, "update"), 0o700)
	}
	if err == nil {
		err = os.Rename(installed, filepath.Join(state, "update", "app_2.0.bin"))
	}
	if err != nil {
		t.Fatal(err)
	}
	p = connectPump(t, h, opt)
	p.awaitFirmware("current 3.0> ()")
	wantFile(t, installed+".log", "app_2.0.bin\napp_2.0.bin\n")
}
