package hub

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

type hubStatusOptions struct {
	hub    target.Options
	output output.Options
	wait   command.Seconds
}

func hubStatusCommand(s output.Streams) *urfave.Command {
	var o hubStatusOptions
	return command.Leaf(&urfave.Command{
		Name:  "status",
		Usage: "check that the local hub answers, and whom it has refused",
		Description: "Exits with 3 when it does not answer. For example, in a script:\n" +
			"   iotdm hub run --ephemeral & iotdm hub status --wait 10s",
		Flags: command.Concat([]urfave.Flag{
			&urfave.GenericFlag{Name: "wait", Value: &o.wait, Usage: "wait up to so `LONG` for the hub to answer"},
			localhub.Flag(&o.hub.Data),
		}, o.output.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.Check(); err != nil {
				return err
			}
			return hubStatus(ctx.Context, s, o)
		},
	})
}

// A hubState is where a hub that answers is found.
type hubState struct {
	HostName string `json:"hostName"`
	MQTTS    string `json:"mqttsAddr"`
	HTTPS    string `json:"httpsAddr"`
	AMQPS    string `json:"amqpsAddr,omitempty"`
	MQTT     string `json:"mqttAddr,omitempty"`
	AMQP     string `json:"amqpAddr,omitempty"`
	Health   string `json:"healthAddr,omitempty"`
	PID      int    `json:"pid"`
	Data     string `json:"data"`

	IDScope string `json:"idScope,omitempty"` // of its provisioning service; empty: an older hub

	ConsumerGroups []string `json:"consumerGroups,omitempty"` // besides $Default

	TestControls      bool    `json:"testControls,omitempty"`      // it has them
	ClockAheadSeconds float64 `json:"clockAheadSeconds,omitempty"` // how far its clock has been moved

	Refusals *hubrest.Refusals `json:"refusals,omitempty"` // nil if they cannot be read
}

func hubStatus(ctx context.Context, s output.Streams, o hubStatusOptions) error {
	patience, cancel := context.WithTimeout(ctx, time.Duration(o.wait))
	defer cancel()
	const pause = 50 * time.Millisecond
	state, err := askHub(ctx, o)
	for err != nil && patience.Err() == nil {
		select {
		case <-patience.Done():
		case <-time.After(pause):
			state, err = askHub(ctx, o)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	state.Refusals = askRefusals(ctx, o)
	return o.output.Print(s, output.Result{Value: state, Text: func(w io.Writer) error {
		amqp := ""
		if state.AMQPS != "" {
			amqp = fmt.Sprintf(", %s (AMQP)", state.AMQPS)
		}
		health := ""
		if state.Health != "" {
			health = fmt.Sprintf(", health checks on %s", state.Health)
		}
		_, err := fmt.Fprintf(w, "The hub answers on %s (MQTT)%s and %s (REST)%s, as process %d with the data folder %s\n",
			state.MQTTS, amqp, state.HTTPS, health, state.PID, state.Data)
		if err == nil && state.IDScope != "" {
			_, err = fmt.Fprintf(w, "It provisions devices that name the id scope %s\n", state.IDScope)
		}
		if err == nil && state.TestControls {
			_, err = io.WriteString(w, underTest(state))
		}
		if err == nil && state.Refusals != nil {
			_, err = io.WriteString(w, refusalText(*state.Refusals))
		}
		return err
	}})
}

// underTest is what of a hub under test is not as in production, for people.
func underTest(h hubState) string {
	clock := ""
	if ahead := command.Seconds(h.ClockAheadSeconds * float64(time.Second)); ahead != 0 {
		clock = fmt.Sprintf("; its clock is %s ahead of the machine's", &ahead)
	}
	return "It runs with --test-controls" + clock + "\n"
}

// askHub finds the hub and asks it how it is.
func askHub(ctx context.Context, o hubStatusOptions) (hubState, error) {
	t, err := o.hub.LocalHub("")
	if err != nil {
		return hubState{}, err
	}
	info, err := localhub.ReadRunning(o.hub.Data)
	if err != nil {
		return hubState{}, err
	}
	dir, err := localhub.Folder(o.hub.Data)
	if err != nil {
		return hubState{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	state := hubState{
		HostName: info.HostName, MQTTS: info.MQTTSAddr, HTTPS: info.HTTPSAddr, AMQPS: info.AMQPSAddr, MQTT: info.MQTTAddr, AMQP: info.AMQPAddr, Health: info.HealthAddr,
		PID: info.PID, Data: dir, IDScope: info.IDScope, ConsumerGroups: info.ConsumerGroups,
		TestControls: info.TestControls, ClockAheadSeconds: info.ClockAhead.Seconds(),
	}
	if err := checkHealth(ctx, t); err != nil {
		return state, fail.Errorf(fail.NotFound, "the hub with the data folder %s (process %d) does not answer: %v", dir, info.PID, err)
	}
	return state, nil
}

// checkHealth asks for /health, which a hub answers without a key on loopback.
func checkHealth(ctx context.Context, t target.Target) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+t.Host()+"/health", nil)
	if err != nil {
		return err
	}
	response, err := t.Transport().RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET /health: %s", response.Status)
	}
	return nil
}

// askRefusals asks the hub whom it has refused. That needs a key, which who may
// not read the data folder does not have, and a hub that is not older.
func askRefusals(ctx context.Context, o hubStatusOptions) *hubrest.Refusals {
	t, err := o.hub.LocalHub("")
	if err != nil {
		return nil
	}
	client, err := t.Client()
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	refusals, err := client.Refusals(ctx)
	if err != nil {
		return nil
	}
	return &refusals
}

// refusalText is whom a hub has refused, for people: counts, and the last ones.
func refusalText(r hubrest.Refusals) string {
	if len(r.Recent) == 0 {
		return ""
	}
	var counts []string
	for _, reason := range slices.Sorted(maps.Keys(r.Counts)) {
		counts = append(counts, fmt.Sprintf("%d %s", r.Counts[reason], output.OneLine(reason)))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Refused since %s: %s; the last:\n", r.Since.Local().Format(time.DateTime), strings.Join(counts, ", "))
	const most = 5
	for _, one := range r.Recent[:min(len(r.Recent), most)] {
		who := one.DeviceID
		if one.ModuleID != "" {
			who += "/" + one.ModuleID
		}
		fmt.Fprintf(&b, "  %s  %s  %s: %s (%s, %s)\n", one.Time.Local().Format(time.DateTime), output.OneLine(cmp.Or(who, "-")),
			output.OneLine(one.Reason), output.OneLine(one.Detail), output.OneLine(one.Door), output.OneLine(one.Remote))
	}
	return b.String()
}
