//go:build unix

package agent_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/hub/hubtest"
)

// A firmware is a package on a server.
type firmware struct {
	url, sha256 string
	size        int
}

func (f firmware) request(version string) string {
	return fmt.Sprintf(`{"fwVersion":%q,"fwPackageURI":%q,"fwPackageCheckValue":%q,"fwSize":%d}`, version, f.url, f.sha256, f.size)
}

// serveFirmware serves a package. Before waits before each answer, if it isn't nil.
func serveFirmware(t *testing.T, before func(*http.Request)) firmware {
	t.Helper()
	content := bytes.Repeat([]byte("firmware"), 10_000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before != nil {
			before(r)
		}
		http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	sum := sha256.Sum256(content)
	return firmware{s.URL + "/app_2.0.bin?sig=secret", hex.EncodeToString(sum[:]), len(content)}
}

// firmwareStatus is what tests compare of the reported property firmware.
func firmwareStatus(report string) string {
	f := gjson.Parse(report)
	text := fmt.Sprintf("%s %s>%s (%s)", f.Get("fwUpdateStatus"), f.Get("currentFwVersion"), f.Get("pendingFwVersion"), f.Get("fwUpdateSubstatus"))
	if f.Get("ac").Exists() {
		text += fmt.Sprintf(" ac %s av %s", f.Get("ac"), f.Get("av"))
	}
	return text
}

// callUpdate is call for an update, without the request id of the answer, which differs, and that id.
func callUpdate(t *testing.T, h *hubtest.Hub, payload string) (answer, id string) {
	t.Helper()
	answer = call(t, h, "firmwareUpdate", payload)
	if before, after, ok := strings.Cut(answer, `,"requestId":"`); ok {
		id, _, _ = strings.Cut(after, `"`)
		answer = before + "}"
	}
	return answer, id
}

func (p *pumpAgent) awaitFirmware(want string) {
	p.t.Helper()
	limit := time.After(time.Minute)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		got := firmwareStatus(p.reported("firmware"))
		if got == want {
			return
		}
		select {
		case <-limit:
			p.t.Fatalf("firmware is %s, want %s", got, want)
		case <-tick.C:
		}
	}
}

// installer is a command that installs a package as a file.
func installer(installed string) agent.Command {
	return script(`cp "$IOTDM_UPDATE_FILE" ` + installed + ` && basename "$IOTDM_UPDATE_FILE" >>` + installed + `.log`)
}

func TestUpdateByDirectMethod(t *testing.T) {
	h := hubtest.New(t)
	f, dir := serveFirmware(t, nil), t.TempDir()
	installed, state := filepath.Join(dir, "app"), filepath.Join(dir, "state")
	opt := agent.Options{Folder: state, Update: agent.Update{Command: installer(installed), Version: "1.0"}}
	p := connectPump(t, h, opt)
	p.awaitFirmware("current 1.0> ()")
	got, id := callUpdate(t, h, f.request("2.0"))
	if want := `202 {"message":"the update to version 2.0 has begun"}`; got != want || id == "" {
		t.Errorf("answer %s of request %q, want %s of some", got, id, want)
	}
	p.awaitFirmware("current 2.0> ()")
	if reported := gjson.Get(p.reported("firmware"), "requestId").String(); reported != id {
		t.Errorf("the report is about the request %q, want %q", reported, id)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(readFile(t, installed))); sum != f.sha256 {
		t.Errorf("what is installed has the SHA-256 %s, want %s", sum, f.sha256)
	}
	report := gjson.Parse(p.reported("firmware"))
	for _, path := range []string{"lastFwUpdateStartTime", "lastFwUpdateEndTime", "fwUpdateTimes.downloading", "fwUpdateTimes.verifying", "fwUpdateTimes.applying"} {
		if _, err := time.Parse(time.RFC3339, report.Get(path).String()); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	// What is installed is not installed again, neither now nor after a restart, whatever the URL.
	for range 2 {
		again := strings.Replace(f.request("2.0"), "secret", "other", 1)
		if got, want := call(t, h, "firmwareUpdate", again), `200 {"message":"version 2.0 is installed already"}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		p.Close()
		p = connectPump(t, h, opt)
	}
	if rest, err := os.ReadDir(filepath.Join(state, "update")); err == nil {
		t.Errorf("left on the disk: %v", rest)
	}
	wantFile(t, installed+".log", "app_2.0.bin\n")
	for _, tt := range []struct{ payload, want string }{
		{`{}`, "fwVersion is missing: the version of the package"},
		{`7`, "an update is an object with fwVersion, fwPackageURI and fwPackageCheckValue"},
		{`{"version":"1"}`, "fwPackageURI is missing: where to download the package"},
		{`{"version":"--help"}`, "fwVersion is not a version: up to 64 letters, digits and . _ + ~ : -"},
		{`{"version":1}`, "version cannot be a number"},
		{`{"version":"1","url":"https://h/p"}`, "fwPackageCheckValue is missing: the SHA-256 of the package"},
		{`{"version":"1","url":"https://h/p","sha256":"123"}`, "fwPackageCheckValue is not a SHA-256: 64 hexadecimal digits"},
		{`{"version":"1","url":"http://example.com/p","sha256":"` + f.sha256 + `"}`, "fwPackageURI is http; packages come over https only"},
		{`{"version":"1","url":"file:///etc/passwd","sha256":"` + f.sha256 + `"}`, "fwPackageURI has no host"},
		{`{"version":"1","url":"https://h/p","sha256":"` + f.sha256 + `","size":1073741825}`, "fwSize is not within 0 and 1073741824 bytes"},
	} {
		if got, want := call(t, h, "firmwareUpdate", tt.payload), fmt.Sprintf(`400 {"message":%q}`, tt.want); got != want {
			t.Errorf("%s is answered %s, want %s", tt.payload, got, want)
		}
	}
}

func TestUpdateByDesiredProperty(t *testing.T) {
	h := hubtest.New(t)
	f, dir := serveFirmware(t, nil), t.TempDir()
	installed := filepath.Join(dir, "app")
	opt := agent.Options{Folder: filepath.Join(dir, "state"), Update: agent.Update{Command: installer(installed)}}
	desireFirmware := func(request string) { desire(t, h, `{"firmware":`+request+`}`) }
	h.Device("pump")
	desireFirmware(f.request("2.0"))
	p := connectPump(t, h, opt)
	p.awaitFirmware("current 2.0> () ac 200 av 2")
	desireFirmware(`{"fwVersion":"2.0"}`)
	p.awaitFirmware("current 2.0> (version 2.0 is installed already) ac 200 av 3")
	desireFirmware(`{"fwVersion":"2.1","fwPackageCheckValue":"` + strings.Repeat("0", 64) + `"}`)
	p.awaitFirmware("error 2.0>2.1 (the package is not the one that was asked for: its SHA-256 is " + f.sha256 + ") ac 500 av 4")
	desireFirmware(`{"fwVersion":null}`)
	p.awaitFirmware("error 2.0> (fwVersion is missing: the version of the package) ac 400 av 5")
	p.Close()

	// What has failed isn't tried again after a restart, also if something else has changed.
	desireFirmware(`{"fwVersion":"2.1"}`)
	p = connectPump(t, h, opt)
	failed := "error 2.0>2.1 (the package is not the one that was asked for: its SHA-256 is " + f.sha256 + ") ac 500 av 6"
	p.awaitFirmware(failed)
	p.Close()
	desire(t, h, `{"other":1}`)
	p = connectPump(t, h, opt)
	p.awaitFirmware(strings.Replace(failed, "av 6", "av 7", 1))
	desire(t, h, `{"firmware":null}`)
	p.awaitFirmware(strings.TrimSuffix(failed, " ac 500 av 6"))
	wantFile(t, installed+".log", "app_2.0.bin\n")
	p.Close()
	if log := p.log.String(); strings.Contains(log, "begins") || strings.Contains(log, "secret") {
		t.Errorf("log:\n%s", log)
	}
}

func TestUpdateIsRolledBack(t *testing.T) {
	h := hubtest.New(t)
	f := serveFirmware(t, nil)
	for _, tt := range []struct{ apply, rollback, want string }{
		{"echo no room >&2; exit 3", "", "error 1.0>2.0 (the update command failed: exit status 3: no room)"},
		{"exit 3", `[ "$IOTDM_UPDATE_PREVIOUS_VERSION" = 1.0 ]`, "rolledback 1.0>2.0 (the update command failed: exit status 3)"},
		{"exit 3", "exit 4", "error 1.0>2.0 (the update command failed: exit status 3; the rollback command failed: exit status 4)"},
	} {
		opt := agent.Options{Folder: t.TempDir(), Update: agent.Update{Command: script(tt.apply), Version: "1.0"}}
		if tt.rollback != "" {
			opt.Update.Rollback = script(tt.rollback)
		}
		p := connectPump(t, h, opt)
		call(t, h, "firmwareUpdate", f.request("2.0"))
		p.awaitFirmware(tt.want)
		p.Close()
		// It stays so, and another try is possible.
		p = connectPump(t, h, opt)
		p.awaitFirmware(tt.want)
		got, _ := callUpdate(t, h, f.request("2.0"))
		if want := `202 {"message":"the update to version 2.0 has begun"}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		p.awaitFirmware(tt.want)
		p.Close()
	}
}

func TestUpdateAcrossRestarts(t *testing.T) {
	h := hubtest.New(t)
	dir := t.TempDir()
	gate := filepath.Join(dir, "gate")
	makeFIFO(t, gate)
	asked, release := make(chan bool), make(chan bool)
	f := serveFirmware(t, func(r *http.Request) {
		select {
		case asked <- true:
		case <-r.Context().Done():
			return
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	opt := agent.Options{Folder: filepath.Join(dir, "state"), Update: agent.Update{
		Version: "1.0",
		Command: agent.Command{Args: []string{"sh", "-c", "echo $1 $2 >" + gate + "; sleep 1000", "sh", "{version}", "{version}"}},
	}}
	p := connectPump(t, h, opt)
	_, first := callUpdate(t, h, f.request("2.0"))
	<-asked
	p.awaitFirmware("downloading 1.0>2.0 ()")
	if got, want := call(t, h, "firmwareUpdate", f.request("3.0")), `409 {"message":"the update to version 2.0 is under way: downloading"}`; got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	got, id := callUpdate(t, h, f.request("2.0"))
	if want := `202 {"message":"the update to version 2.0 is under way: downloading"}`; got != want || id != first {
		t.Errorf("answer %s of request %s, want %s of %s", got, id, want, first)
	}
	p.Close() // while it is downloaded: the next start goes on
	p = connectPump(t, h, opt)
	<-asked
	release <- true
	wantFile(t, gate, "2.0 2.0\n")
	p.awaitFirmware("applying 1.0>2.0 ()")
	p.Close() // while it is applied: the next start doesn't dare to
	p = connectPump(t, h, opt)
	p.awaitFirmware("error 1.0>2.0 (the agent ended while the update command ran; the update may be installed in part)")
	p.Close()

	// With a rollback command it is rolled back, which isn't repeated either.
	opt.Update.Rollback = script("echo back >" + gate + "; sleep 1000")
	p = connectPump(t, h, opt)
	call(t, h, "firmwareUpdate", f.request("2.0"))
	<-asked
	release <- true
	wantFile(t, gate, "2.0 2.0\n")
	p.Close()
	p = connectPump(t, h, opt)
	wantFile(t, gate, "back\n")
	p.awaitFirmware("error 1.0>2.0 (the agent ended while the update command ran)")
	p.Close()
	p = connectPump(t, h, opt)
	p.awaitFirmware("error 1.0>2.0 (the agent ended while the update command ran; the agent ended while the rollback command ran)")
}

func TestUpdateTakesThePlaceOfAnother(t *testing.T) {
	h := hubtest.New(t)
	dir := t.TempDir()
	asked := make(chan bool)
	slow := serveFirmware(t, func(r *http.Request) {
		asked <- true
		<-r.Context().Done()
	})
	f := serveFirmware(t, nil)
	installed := filepath.Join(dir, "app")
	p := connectPump(t, h, agent.Options{Folder: filepath.Join(dir, "state"), Update: agent.Update{Command: installer(installed)}})
	desire(t, h, `{"firmware":`+slow.request("2.0")+`}`)
	<-asked
	desire(t, h, `{"firmware":`+f.request("3.0")+`}`)
	p.awaitFirmware("current 3.0> () ac 200 av 3")
	desire(t, h, `{"firmware":`+slow.request("4.0")+`}`)
	<-asked
	desire(t, h, `{"firmware":null}`)
	p.awaitFirmware("error 3.0>4.0 (withdrawn)")
	wantFile(t, installed+".log", "app_2.0.bin\n")
}

func TestUpdateThatNeedsAReboot(t *testing.T) {
	h := hubtest.New(t)
	f := serveFirmware(t, nil)
	boot := agent.Boot{ID: "first", Time: time.Now().Add(-time.Hour)}
	opt := agent.Options{Folder: t.TempDir(), Boot: func() (agent.Boot, error) { return boot, nil },
		Update: agent.Update{Command: script("exit 102")}}
	p := connectPump(t, h, opt)
	call(t, h, "firmwareUpdate", f.request("2.0"))
	p.awaitFirmware("rebooting >2.0 (waiting for somebody to reboot the machine)")
	p.Close()
	p = connectPump(t, h, opt)
	p.awaitFirmware("rebooting >2.0 (waiting for somebody to reboot the machine)")
	p.Close()
	boot = agent.Boot{ID: "second", Time: time.Now()}
	p = connectPump(t, h, opt)
	p.awaitFirmware("current 2.0> ()")
	p.Close()

	// With a reboot command the machine reboots by itself.
	gate := filepath.Join(opt.Folder, "gate")
	makeFIFO(t, gate)
	opt.RebootCommand = "echo now >" + gate + "; sleep 1000"
	p = connectPump(t, h, opt)
	call(t, h, "firmwareUpdate", f.request("3.0"))
	wantFile(t, gate, "now\n")
	p.awaitFirmware("rebooting 2.0>3.0 ()")
	p.Close()
	boot = agent.Boot{ID: "third", Time: time.Now()}
	p = connectPump(t, h, opt)
	p.awaitFirmware("current 3.0> ()")
}

func TestUpdateCannotBeStored(t *testing.T) {
	h := hubtest.New(t)
	folder := filepath.Join(t.TempDir(), "file", "state")
	if err := os.WriteFile(filepath.Dir(folder), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := connectPump(t, h, agent.Options{Folder: folder, Update: agent.Update{Command: script("true")}})
	got := call(t, h, "firmwareUpdate", serveFirmware(t, nil).request("2.0"))
	if !strings.HasPrefix(got, `500 {"message":"the device could not store that it is to update: `) {
		t.Errorf("answer %s", got)
	}
	p.awaitReportedThat("firmware.fwUpdateStatus", "error", func(got string) bool { return got == `"error"` })
}

func TestFactoryReset(t *testing.T) {
	h := hubtest.New(t)
	dir := t.TempDir()
	gate, log, state := filepath.Join(dir, "gate"), filepath.Join(dir, "log"), filepath.Join(dir, "state")
	makeFIFO(t, gate)
	opt := agent.Options{Folder: state, FactoryReset: logged(log, `echo started >`+gate+`; read code <`+gate+`; exit $code`)}
	awaitReset := func(p *pumpAgent, want string) {
		p.t.Helper()
		p.awaitReportedThat("factoryReset", want, func(got string) bool {
			return gjson.Get(got, "status").String()+" ("+gjson.Get(got, "detail").String()+")" == want
		})
	}
	resetOnce := func(code string) {
		t.Helper()
		if got, want := call(t, h, "factoryReset", `{"keep":"network"}`), `202 {"message":"the factory reset has begun"}`; got != want {
			t.Errorf("answer %s, want %s", got, want)
		}
		wantFile(t, gate, "started\n")
		if code != "" {
			if err := os.WriteFile(gate, []byte(code+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := connectPump(t, h, opt)
	resetOnce("")
	awaitReset(p, "resetting ()")
	if got, want := call(t, h, "factoryReset", `{}`), `409 {"message":"the device is being reset already"}`; got != want {
		t.Errorf("answer %s, want %s", got, want)
	}
	if err := os.WriteFile(gate, []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	awaitReset(p, "done ()")
	resetOnce("5")
	awaitReset(p, "error (exit status 5)")
	resetOnce("102")
	awaitReset(p, "done (the machine has to be rebooted)")

	// It is not repeated after a restart, but reported.
	resetOnce("")
	p.Close()
	p = connectPump(t, h, opt)
	awaitReset(p, "interrupted (the agent ended while the command ran)")

	// A reset that removes what the agent remembers, and the agent with it.
	resetOnce("")
	awaitReset(p, "resetting ()")
	p.Close()
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	p = connectPump(t, h, opt)
	awaitReset(p, "done (the device has lost what it remembered, as by a reset)")
	wantFile(t, log, strings.Repeat("{\"keep\":\"network\"}\n", 5))
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDamagedState(t *testing.T) {
	h := hubtest.New(t)
	f, folder, log := serveFirmware(t, nil), t.TempDir(), filepath.Join(t.TempDir(), "log")
	for _, name := range []string{"update.json", "desired.json", "factory-reset.json", "reboot.json"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := connectPump(t, h, agent.Options{
		Folder: folder, Update: agent.Update{Command: script("true"), Version: "1.0"}, FactoryReset: script("true"), RebootCommand: "true",
		OnDesired: map[string]agent.Command{"speed": logged(log, "")},
	})
	desire(t, h, `{"speed":1,"firmware":`+f.request("2.0")+`}`)
	p.awaitFirmware("current 2.0> () ac 200 av 2")
	p.awaitReported("speed", `{"value":1,"ac":200,"av":2,"ad":"done"}`)
	p.Close()
	if log := p.log.String(); strings.Count(log, "is damaged") != 4 {
		t.Errorf("log:\n%s", log)
	}
}
