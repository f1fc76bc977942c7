package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
)

// A scope is what a condition chooses, as it was when it was counted: devices, or
// for a configuration modules.
type scope struct {
	Condition string        `json:"condition"`
	Devices   int           `json:"devices"`
	Connected int           `json:"connected"`
	First     []scopeDevice `json:"first"` // of a dry run: the first of them
}

type scopeDevice struct {
	DeviceID        string `json:"deviceId"`
	ModuleID        string `json:"moduleId,omitempty"`
	ConnectionState string `json:"connectionState"`
}

// String counts the devices for people.
func (sc *scope) String() string {
	text := output.Count(sc.Devices, phrase.Choose(sc.ofModules(), "module", "device"))
	switch {
	case sc.Devices == 0:
		return text
	case sc.Devices == 1:
		return text + ", " + phrase.Choose(sc.Connected == 1, "connected", "not connected")
	case sc.Connected == sc.Devices:
		return text + ", all connected"
	case sc.Connected == 0:
		return text + ", none connected"
	}
	return fmt.Sprintf("%s, %d of them connected", text, sc.Connected)
}

// ofModules reports whether the condition is one of modules, which names what it
// is FROM. Only configurations have such conditions.
func (sc *scope) ofModules() bool {
	words := strings.Fields(sc.Condition)
	return len(words) > 0 && strings.EqualFold(words[0], "FROM")
}

// query selects from what the condition chooses.
func (sc *scope) query(what string) string {
	if sc.ofModules() {
		return "SELECT " + what + " " + sc.Condition
	}
	return "SELECT " + what + " FROM devices" + condition.Where(sc.Condition)
}

// countScope asks the hub, once, how much a condition chooses.
func countScope(ctx context.Context, client *hubrest.Client, where string) (*scope, error) {
	sc := &scope{Condition: where, First: []scopeDevice{}}
	for row, err := range client.Query(ctx, sc.query("connectionState, COUNT() AS n")+" GROUP BY connectionState", 0) {
		if err != nil {
			return nil, err
		}
		var group struct {
			ConnectionState string
			N               int
		}
		if err := json.Unmarshal(row, &group); err != nil {
			return nil, fmt.Errorf("count the devices: the hub's answer is not as documented: %w", err)
		}
		sc.Devices += group.N
		if group.ConnectionState == "Connected" {
			sc.Connected += group.N
		}
	}
	return sc, nil
}

// findFirst finds the first devices of the scope.
func (sc *scope) findFirst(ctx context.Context, client *hubrest.Client) error {
	const most = 10
	what := "deviceId, connectionState"
	if sc.ofModules() {
		what = "deviceId, moduleId, connectionState"
	}
	for row, err := range client.Query(ctx, sc.query(what), most) {
		if err != nil {
			return err
		}
		var d scopeDevice
		if err := json.Unmarshal(row, &d); err != nil {
			return fmt.Errorf("find the devices: the hub's answer is not as documented: %w", err)
		}
		if sc.First = append(sc.First, d); len(sc.First) == most {
			break
		}
	}
	return nil
}

// A guard stands between a command and all devices that a condition chooses: it
// says how many they are, and asks.
type guard struct {
	confirm command.Confirmation
	dryRun  bool
}

func (g *guard) flags() []urfave.Flag {
	return []urfave.Flag{
		g.confirm.Flag(),
		&urfave.BoolFlag{Name: "dry-run", Destination: &g.dryRun, DisableDefaultText: true, Usage: "only say how many devices it is about, and which come first"},
	}
}

// A plan is what a command is about to do.
type plan struct {
	verb     string // such as Reboot
	where    string
	addition string // behind the count
	host     string // of the hub, for the error that nothing meets the condition; empty: that is none
}

// admit says what the command is about to do, and to how many devices. It returns
// true if that may be done, and false without an error after a dry run.
func (g *guard) admit(ctx context.Context, s output.Streams, client *hubrest.Client, opt output.Options, p plan) (bool, error) {
	noteHints(s, p.where)
	sc, err := countScope(ctx, client, p.where)
	if err != nil {
		return false, err
	}
	if sc.Devices == 0 && p.host != "" {
		return false, noDevice(p.host, p.where)
	}
	what := fmt.Sprintf("%s %s%s", p.verb, sc, p.addition)
	if !g.dryRun {
		if g.confirm.Given() {
			s.Note("%s", what)
		}
		return true, g.confirm.Ask(ctx, s, what)
	}
	if err := sc.findFirst(ctx, client); err != nil {
		return false, err
	}
	return false, sc.print(s, opt, what)
}

func noDevice(host, where string) error {
	return fail.Errorf(fail.NotFound, "no device on %s matches --where %q", host, where)
}

// print is the result of a dry run.
func (sc *scope) print(s output.Streams, opt output.Options, what string) error {
	s.Note("%s: a dry run, nothing was done", what)
	return opt.Print(s, output.Result{Value: sc, Text: func(w io.Writer) error {
		if sc.Devices == 0 {
			return nil
		}
		columns := []output.Column{{"DEVICE", "deviceId"}, {"MODULE", "moduleId"}, {"CONNECTION", "connectionState"}}
		if !sc.ofModules() {
			columns = slices.Delete(columns, 1, 2)
		}
		table := output.Options{Format: "table"}
		err := table.Print(output.Streams{Out: w}, output.Result{Value: sc.First, Columns: columns})
		if rest := sc.Devices - len(sc.First); err == nil && rest > 0 {
			s.Note("... and %d more; see all with \"iotdm service query\"", rest)
		}
		return err
	}})
}
