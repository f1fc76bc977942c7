package hub

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
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
		Usage: "check that the local hub answers",
		Description: "Exits with 3 when it does not. For example, in a script:\n" +
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

	ConsumerGroups []string `json:"consumerGroups,omitempty"` // besides $Default
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
		return err
	}})
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
	state := hubState{info.HostName, info.MQTTSAddr, info.HTTPSAddr, info.AMQPSAddr, info.MQTTAddr, info.AMQPAddr, info.HealthAddr, info.PID, dir, info.ConsumerGroups}
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
