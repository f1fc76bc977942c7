package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

type statusShown struct {
	statusDocument
	Reboot rebootStatus
}

func readStatus(t *testing.T, file string) (s statusShown) {
	t.Helper()
	doc, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(doc, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatusFile(t *testing.T) {
	h := hubtest.New(t)
	m := newMachine(t, h)
	m.opt.RebootCommand = "exit 7"
	m.opt.StatusFile = filepath.Join(t.TempDir(), "status.json")
	a := m.start()
	for range statusMethods {
		m.call("reboot")
		m.call("ping")
	}
	m.awaitOutcome(CommandFailed)
	if err := a.writeStatus(); err != nil {
		t.Fatal(err)
	}
	got := readStatus(t, m.opt.StatusFile)
	if got.Device != "d1" || got.Hub != "localhost" || got.PID != os.Getpid() || got.StartedAt.IsZero() {
		t.Errorf("the status says of the agent: %+v", got)
	}
	c := got.Connection
	if c.State != "connected" || c.Transport != "TCP" || c.Addr == "" || c.Since.Before(got.StartedAt) || c.RetryAt != nil {
		t.Errorf("the status says of the connection: %+v", c)
	}
	if n := len(got.Methods); n != statusMethods || got.Methods[n-1].Name != "ping" || got.Methods[n-1].Status != 404 {
		t.Errorf("the status says of methods: %+v", got.Methods)
	}
	if r := got.Reboot; r.Pending || r.Boot.ID != "boot-1" || r.Last == nil || r.Last.Outcome != CommandFailed {
		t.Errorf("the status says of reboots: %+v", r)
	}
	info, err := os.Stat(m.opt.StatusFile)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("the file is %v (%v)", info.Mode(), err)
	}
	doc, _ := os.ReadFile(m.opt.StatusFile)
	key := string(m.opt.Device.ConnectionString.SharedAccessKey)
	if strings.Contains(string(doc), key) || strings.Contains(string(doc), "sig=") {
		t.Error("the status has a secret")
	}

	if err := h.DeleteIdentity(hub.ID{Device: "d1"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	got = readStatus(t, m.opt.StatusFile)
	if c := got.Connection; c.State != "disconnected" || c.Reason == "" {
		t.Errorf("at the end the status says of the connection: %+v", c)
	}
	if entries, err := os.ReadDir(filepath.Dir(m.opt.StatusFile)); err != nil || len(entries) != 1 {
		t.Errorf("%d files are left (%v)", len(entries), err)
	}
}

// The file of a device that has no connection says so from the start.
func TestStatusWithoutConnection(t *testing.T) {
	h := hubtest.New(t)
	m := newMachine(t, h)
	m.opt.StatusFile = filepath.Join(t.TempDir(), "status.json")
	a, err := New(m.opt)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.onState(mqttdevice.State{Status: mqttdevice.Disconnected, Since: time.Now(), Attempts: 3, Reason: errors.New("no route"), Retry: time.Minute})
	if err := a.writeStatus(); err != nil {
		t.Fatal(err)
	}
	c := readStatus(t, m.opt.StatusFile).Connection
	if c.State != "disconnected" || c.Reason != "no route" || c.Attempts != 3 || c.RetryAt == nil || c.Transport != "" {
		t.Errorf("the status says of the connection: %+v", c)
	}
}

// What is done upon a connection may wait for the next one, but not for ever while there is one.
func TestAliveWhileReporting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{status: newStatusFile(Options{})}
		check := func(what string, want bool) {
			t.Helper()
			if err := a.Alive(); (err == nil) != want {
				t.Errorf("%s: Alive() = %v, want alive to be %v", what, err, want)
			}
		}
		a.status.heard(mqttdevice.State{Status: mqttdevice.Connected})
		a.status.working(true)
		time.Sleep(time.Minute)
		a.status.heard(mqttdevice.State{Status: mqttdevice.Disconnected})
		time.Sleep(time.Hour)
		check("not connected", true)
		a.status.heard(mqttdevice.State{Status: mqttdevice.Connected})
		check("connected again", true)
		time.Sleep(lateBy + time.Second)
		check("connected for long", false)
		a.status.working(false)
		check("done", true)
	})
}

func TestAlive(t *testing.T) {
	for _, tt := range []struct {
		name  string
		state mqttdevice.State
		after time.Duration
		alive bool
	}{
		{"nothing has happened", mqttdevice.State{}, 24 * time.Hour, true},
		{"it connects", mqttdevice.State{Status: mqttdevice.Connecting}, time.Minute, true},
		{"it connects for ever", mqttdevice.State{Status: mqttdevice.Connecting}, time.Hour, false},
		{"it waits", mqttdevice.State{Status: mqttdevice.Disconnected, Retry: 10 * time.Minute}, 11 * time.Minute, true},
		{"it waits too long", mqttdevice.State{Status: mqttdevice.Disconnected, Retry: 10 * time.Minute}, 16 * time.Minute, false},
		{"it is connected", mqttdevice.State{Status: mqttdevice.Connected}, time.Hour, true},
		{"its token ended long ago", mqttdevice.State{Status: mqttdevice.Connected}, 2 * time.Hour, false},
		{"it is closed", mqttdevice.State{Status: mqttdevice.Disconnected}, 24 * time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opt := Options{}
				opt.Device.ConnectionString.SharedAccessKey = "AAAA"
				a := &Agent{status: newStatusFile(opt)}
				if tt.state.Status != 0 {
					a.status.heard(tt.state)
				}
				time.Sleep(tt.after)
				if err := a.Alive(); (err == nil) != tt.alive {
					t.Errorf("Alive() = %v, want alive to be %v", err, tt.alive)
				}
			})
		})
	}
}

// Other programs tell by the file that the agent runs, also when nothing happens.
func TestStatusIsWrittenNowAndThen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "status.json")
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{opt: Options{StatusFile: file}, status: newStatusFile(Options{StatusFile: file})}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); a.keepStatus(ctx) }()
		synctest.Wait()
		first := readStatus(t, file).UpdatedAt
		time.Sleep(statusPeriod + statusPause)
		synctest.Wait()
		if second := readStatus(t, file).UpdatedAt; !second.After(first) {
			t.Errorf("written at %v and %v", first, second)
		}
		cancel()
		<-ended
	})
}
