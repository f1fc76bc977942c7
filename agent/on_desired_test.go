//go:build unix

package agent_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
)

var pump = hub.ID{Device: "pump"}

// A pumpAgent is an agent of the device pump, and what it logged.
type pumpAgent struct {
	*agent.Agent
	t *testing.T
	h *hubtest.Hub

	mu  sync.Mutex
	log strings.Builder
}

// Write takes a line of the log.
func (p *pumpAgent) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(line)
}

// connectPump connects an agent as the device pump. It is closed with the test.
func connectPump(t *testing.T, h *hubtest.Hub, opt agent.Options) *pumpAgent {
	t.Helper()
	p := &pumpAgent{t: t, h: h}
	opt.Device = mqttdevice.Options{ConnectionString: h.Device("pump"), Addr: h.MQTTSAddr, TLS: h.ClientTLS()}
	opt.Logger = slog.New(slog.NewTextHandler(p, nil))
	var err error
	if p.Agent, err = agent.New(opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
	if err := p.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

// awaitReported waits until the reported property at path is want.
func (p *pumpAgent) awaitReported(path, want string) {
	p.t.Helper()
	p.awaitReportedThat(path, want, func(got string) bool {
		var a, b any
		return got == want || json.Unmarshal([]byte(got), &a) == nil && json.Unmarshal([]byte(want), &b) == nil && cmp.Equal(a, b)
	})
}

func (p *pumpAgent) awaitReportedThat(path, want string, is func(string) bool) {
	p.t.Helper()
	limit := time.After(time.Minute)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		got := p.reported(path)
		if is(got) {
			return
		}
		select {
		case <-limit:
			p.t.Fatalf("reported %s is %s, want %s", path, got, want)
		case <-tick.C:
		}
	}
}

// reported is the reported property at path; empty if there is none.
func (p *pumpAgent) reported(path string) string {
	p.t.Helper()
	twin, err := p.h.DeviceTwin(pump)
	if err != nil {
		p.t.Fatal(err)
	}
	return gjson.GetBytes(twin, "reported."+path).Raw
}

// awaitLog waits until the agent has logged a text.
func (p *pumpAgent) awaitLog(text string) {
	p.t.Helper()
	p.awaitReportedThat("", "with "+text+" in the log", func(string) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return strings.Contains(p.log.String(), text)
	})
}

// desire patches the desired properties.
func desire(t *testing.T, h *hubtest.Hub, patch string) {
	t.Helper()
	if _, err := h.PatchTwin(pump, hub.TwinChange{Desired: json.RawMessage(patch)}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
}

// script is a command that the shell runs.
func script(text string) agent.Command { return agent.Command{Script: text} }

// logged is a command that appends its input to a file, and then runs text with the input as $input.
func logged(file, text string) agent.Command {
	return script(`input=$(cat); echo "$input" >>` + file + `; ` + text)
}

func TestDesiredPropertyIsCarriedOutAndAcknowledged(t *testing.T) {
	h := hubtest.New(t)
	p := connectPump(t, h, agent.Options{OnDesired: map[string]agent.Command{
		"limits.speed": script(`input=$(cat)
			case $input in
			null) exit 0 ;;
			'"now"') echo 17 ;;
			'"deep"') echo '{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":1}}}}}}}}}' ;;
			'"abyss"') head -c 70 /dev/zero | tr '\0' '['; head -c 70 /dev/zero | tr '\0' ']' ;;
			'"big"') head -c 5000 /dev/zero | tr '\0' x | sed 's/.*/"&"/' ;;
			'"text"') echo hello ;;
			[0-9{]*) ;;
			*) echo "$IOTDM_DESIRED_PATH is no speed as of $IOTDM_DESIRED_VERSION" >&2; exit 65 ;;
			esac`),
	}})
	const path, refused = "limits.speed", "done; the value is not shown: "
	for i, tt := range []struct{ patch, want string }{
		{`{"limits":{"speed":5}}`, `{"value":5,"ac":200,"av":2,"ad":"done"}`},
		{`{"limits":{"speed":"now"}}`, `{"value":17,"ac":200,"av":3,"ad":"done"}`},
		{`{"limits":{"speed":"fast"}}`, `{"value":17,"ac":400,"av":4,"ad":"exit status 65: limits.speed is no speed as of 4"}`},
		{`{"limits":{"speed":{"low":1,"high":2}}}`, `{"value":{"low":1,"high":2},"ac":200,"av":5,"ad":"done"}`},
		{`{"limits":{"speed":{"low":null}}}`, `{"value":{"high":2},"ac":200,"av":6,"ad":"done"}`},
		{`{"limits":{"speed":"text"}}`, `{"value":{"high":2},"ac":500,"av":7,"ad":"the command printed what is not JSON (text needs double quotes): hello"}`},
		{`{"limits":{"speed":"deep"}}`, refused + "the hub answered 400"},
		{`{"limits":{"speed":"abyss"}}`, refused + "Property or Tag should be nested"},
		{`{"limits":{"speed":"big"}}`, refused + "the hub answered 400"},
		{`{"limits":{"speed":6},"other":1}`, `{"value":6,"ac":200,"av":11,"ad":"done"}`},
		{`{"limits":null}`, ``},
		{`{"limits":{"speed":7}}`, `{"value":7,"ac":200,"av":13,"ad":"done"}`},
	} {
		desire(t, h, tt.patch)
		if strings.HasPrefix(tt.want, refused) {
			p.awaitReportedThat(path, "no value", func(got string) bool {
				return gjson.Get(got, "av").Int() == int64(i+2) && gjson.Get(got, "ac").Int() == 200 &&
					!gjson.Get(got, "value").Exists() && strings.HasPrefix(gjson.Get(got, "ad").String(), tt.want)
			})
			continue
		}
		p.awaitReported(path, tt.want)
	}
}

func TestDesiredPropertiesThatCameMeanwhile(t *testing.T) {
	h := hubtest.New(t)
	dir := t.TempDir()
	gate, log := filepath.Join(dir, "gate"), filepath.Join(dir, "log")
	makeFIFO(t, gate)
	p := connectPump(t, h, agent.Options{OnDesired: map[string]agent.Command{
		"speed": logged(log, "echo started >"+gate+"; cat "+gate+" >&2"),
		"mark":  script("true"),
	}})
	desire(t, h, `{"speed":0}`)
	wantFile(t, gate, "started\n")
	// Slow ones are said to be in progress. Of those that come meanwhile only the newest counts.
	p.awaitReported("speed", `{"ac":202,"av":2,"ad":"in progress"}`)
	for _, patch := range []string{`{"speed":1}`, `{"speed":2}`, `{"other":1}`, `{"speed":3}`, `{"mark":1}`} {
		desire(t, h, patch)
	}
	p.awaitReported("mark", `{"value":1,"ac":200,"av":7,"ad":"done"}`) // what came before has come too
	open(t, gate)
	wantFile(t, gate, "started\n")
	open(t, gate)
	p.awaitReported("speed", `{"value":3,"ac":200,"av":6,"ad":"done"}`)
	wantFile(t, log, "0\n3\n")
}

func TestDesiredPropertiesAcrossRestarts(t *testing.T) {
	h := hubtest.New(t)
	h.Device("pump")
	folder := filepath.Join(t.TempDir(), "state")
	speed, colour := filepath.Join(t.TempDir(), "speed"), filepath.Join(t.TempDir(), "colour")
	opt := agent.Options{Folder: folder, OnDesired: map[string]agent.Command{
		"speed":  logged(speed, `[ "$input" != 13 ]`),
		"colour": logged(colour, ""),
	}}
	// What was desired while the device was away is carried out when it comes.
	desire(t, h, `{"speed":1,"colour":"red"}`)
	p := connectPump(t, h, opt)
	p.awaitReported("speed", `{"value":1,"ac":200,"av":2,"ad":"done"}`)
	p.awaitReported("colour", `{"value":"red","ac":200,"av":2,"ad":"done"}`)
	p.Close()

	// Only what has changed since is carried out, not everything of a newer version.
	desire(t, h, `{"speed":2}`)
	p = connectPump(t, h, opt)
	p.awaitReported("speed", `{"value":2,"ac":200,"av":3,"ad":"done"}`)
	p.Close()

	// What failed is not tried again until there is something new.
	desire(t, h, `{"speed":13}`)
	p = connectPump(t, h, opt)
	p.awaitReported("speed", `{"value":2,"ac":500,"av":4,"ad":"exit status 1"}`)
	p.Close()
	connectPump(t, h, opt).Close()
	desire(t, h, `{"colour":"blue"}`)
	p = connectPump(t, h, opt)
	p.awaitReported("colour", `{"value":"blue","ac":200,"av":5,"ad":"done"}`)
	p.awaitReported("speed", `{"value":2,"ac":500,"av":5,"ad":"exit status 1"}`)
	p.Close()
	connectPump(t, h, opt).Close()

	// What is gone is taken back.
	desire(t, h, `{"speed":null,"colour":null}`)
	p = connectPump(t, h, opt)
	p.awaitReported("speed", ``)
	p.awaitReported("colour", ``)
	p.Close()
	p = connectPump(t, h, opt)
	desire(t, h, `{"colour":"green"}`)
	p.awaitReported("colour", `{"value":"green","ac":200,"av":7,"ad":"done"}`)
	wantFile(t, speed, "1\n2\n13\n13\nnull\n")
	wantFile(t, colour, "\"red\"\n\"blue\"\nnull\n\"green\"\n")
}

// A replacement of the twin, and null for all of it, take back what they leave out.
func TestDesiredPropertiesThatAReplacementLeavesOut(t *testing.T) {
	h := hubtest.New(t)
	folder, dir := t.TempDir(), t.TempDir()
	speed, limits, mark := filepath.Join(dir, "speed"), filepath.Join(dir, "limits"), filepath.Join(dir, "mark")
	opt := agent.Options{Folder: folder, OnDesired: map[string]agent.Command{
		"motor.speed": logged(speed, ""), "limits": logged(limits, ""), "mark": logged(mark, ""),
	}}
	replace := func(desired string) {
		t.Helper()
		if _, err := h.ReplaceTwin(pump, hub.TwinChange{Desired: json.RawMessage(desired)}, hub.Match{}); err != nil {
			t.Fatal(err)
		}
	}
	p := connectPump(t, h, opt)
	replace(`{"motor":{"speed":1,"on":true},"limits":{"low":1,"high":2},"mark":1}`)
	p.awaitReported("motor.speed", `{"value":1,"ac":200,"av":2,"ad":"done"}`)
	p.awaitReported("limits", `{"value":{"low":1,"high":2},"ac":200,"av":2,"ad":"done"}`)
	p.awaitReported("mark", `{"value":1,"ac":200,"av":2,"ad":"done"}`)

	// While it is connected, deep in an object and all of one.
	replace(`{"motor":{"on":true},"limits":{"low":1},"mark":1}`)
	p.awaitReported("motor.speed", ``)
	p.awaitReported("limits", `{"value":{"low":1},"ac":200,"av":3,"ad":"done"}`)
	p.awaitReported("mark", `{"value":1,"ac":200,"av":3,"ad":"done"}`)
	if _, err := h.PatchTwin(pump, hub.TwinChange{ClearDesired: true}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	p.awaitReported("limits", ``)
	p.awaitReported("mark", ``)

	// And while it is away.
	replace(`{"motor":{"speed":2},"limits":{"low":2},"mark":2}`)
	p.awaitReported("motor.speed", `{"value":2,"ac":200,"av":5,"ad":"done"}`)
	p.awaitReported("limits", `{"value":{"low":2},"ac":200,"av":5,"ad":"done"}`)
	p.awaitReported("mark", `{"value":2,"ac":200,"av":5,"ad":"done"}`)
	p.Close()
	replace(`{"limits":{"high":2},"mark":2}`)
	p = connectPump(t, h, opt)
	p.awaitReported("motor.speed", ``)
	p.awaitReported("limits", `{"value":{"high":2},"ac":200,"av":6,"ad":"done"}`)
	p.Close()
	wantFile(t, speed, "1\nnull\n2\nnull\n")
	wantFile(t, limits, "{\"low\":1,\"high\":2}\n{\"low\":1}\nnull\n{\"low\":2}\n{\"high\":2}\n")
	// What a replacement names again is as a patch that does: carried out again, but not by reading the twin.
	wantFile(t, mark, "1\n1\nnull\n2\n")
}

// The device remembers what it carried out, though its acknowledgement never came through.
func TestAPropertyThatIsGoneBeforeItWasAcknowledged(t *testing.T) {
	h := hubtest.New(t)
	log := filepath.Join(t.TempDir(), "log")
	opt := agent.Options{Folder: t.TempDir(), OnDesired: map[string]agent.Command{"speed": logged(log, ""), "mark": script("true")}}
	p := connectPump(t, h, opt)
	desire(t, h, `{"speed":1}`)
	p.awaitReported("speed", `{"value":1,"ac":200,"av":2,"ad":"done"}`)
	p.Close()
	// As if the report had been lost.
	if _, err := h.PatchReported(pump, []byte(`{"speed":null}`), hub.AnyVersion); err != nil {
		t.Fatal(err)
	}
	desire(t, h, `{"speed":null}`)
	p = connectPump(t, h, opt)
	p.awaitLog("property=speed version=3 status=200")
	p.Close()
	// Once is enough.
	p = connectPump(t, h, opt)
	desire(t, h, `{"mark":1}`)
	p.awaitReported("mark", `{"value":1,"ac":200,"av":4,"ad":"done"}`)
	p.Close()
	wantFile(t, log, "1\nnull\n")
}

func TestDesiredPropertyIsInterrupted(t *testing.T) {
	h := hubtest.New(t)
	dir := t.TempDir()
	gate, log := filepath.Join(dir, "gate"), filepath.Join(dir, "log")
	makeFIFO(t, gate)
	opt := agent.Options{OnDesired: map[string]agent.Command{"speed": logged(log, "echo started >"+gate+"; cat "+gate+" >&2")}}
	p := connectPump(t, h, opt)
	desire(t, h, `{"speed":1}`)
	wantFile(t, gate, "started\n")
	p.Close()
	if got := p.reported("speed"); strings.Contains(got, `"ac":5`) {
		t.Errorf("an interrupted command is reported: %s", got)
	}
	// The next start runs it again.
	p = connectPump(t, h, opt)
	wantFile(t, gate, "started\n")
	open(t, gate)
	p.awaitReported("speed", `{"value":1,"ac":200,"av":2,"ad":"done"}`)
	wantFile(t, log, "1\n1\n")
}

func TestBindingsThatCannotWork(t *testing.T) {
	h := hubtest.New(t)
	ok := script("true")
	concurrent := agent.Command{Script: "true", Concurrent: true}
	for _, tt := range []struct {
		opt  agent.Options
		want string
	}{
		{agent.Options{OnDesired: map[string]agent.Command{"a": ok, "a.b": ok}}, "the desired properties a and a.b overlap; bind one of them"},
		{agent.Options{OnDesired: map[string]agent.Command{"a..b": ok}}, `"a..b" is not the path of a desired property, such as telemetry.interval`},
		{agent.Options{OnDesired: map[string]agent.Command{"a": {}}}, "the desired property a is bound to no command"},
		{agent.Options{OnDesired: map[string]agent.Command{"a": concurrent}}, "the command of the desired property a cannot be concurrent: of two values the older might win"},
		{agent.Options{OnMethod: map[string]agent.Command{"a": {}}}, `the direct method "a" is bound to no command`},
		{agent.Options{OnMethod: map[string]agent.Command{"": ok}}, "a command is bound to a direct method without a name"},
	} {
		tt.opt.Device.ConnectionString = h.Device("pump")
		if _, err := agent.New(tt.opt); err == nil || err.Error() != tt.want {
			t.Errorf("error %v, want %s", err, tt.want)
		}
	}
}

// open lets who reads a named pipe go on.
func open(t *testing.T, fifo string) {
	t.Helper()
	if err := os.WriteFile(fifo, []byte("go on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantFile reads a file, or a named pipe until its end.
func wantFile(t *testing.T, name, want string) {
	t.Helper()
	got, err := os.ReadFile(name)
	if err != nil || string(got) != want {
		t.Fatalf("%s has %q, error %v, want %q", filepath.Base(name), got, err, want)
	}
}
