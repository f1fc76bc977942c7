package service

import (
	"context"
	"encoding/json"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

// methodOptions say which direct method to call, and how long to wait.
type methodOptions struct {
	method         string
	payload        string
	timeout        command.Seconds
	connectTimeout command.Seconds
}

// Bounds of the service, from "Understand and invoke direct methods from IoT Hub".
const (
	minMethodTimeout = 5 * time.Second
	maxMethodTimeout = 300 * time.Second
)

func (o *methodOptions) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: "method", Destination: &o.method, Value: o.method, Usage: "the `NAME` of the direct method"},
		&urfave.StringFlag{Name: "payload", Destination: &o.payload, DefaultText: "null", Usage: "`JSON` for the device, @FILE or -"},
	}, o.timeFlags())
}

// timeFlags are those of flags that say how long to wait for the answer.
func (o *methodOptions) timeFlags() []urfave.Flag {
	o.timeout = command.Seconds(30 * time.Second)
	return []urfave.Flag{
		&urfave.GenericFlag{Name: "timeout", Value: &o.timeout, Usage: "how `LONG` the device may take, 5s to 300s"},
		&urfave.GenericFlag{Name: "connect-timeout", Value: &o.connectTimeout, Usage: "how `LONG` it may take to connect, 0s to 300s"},
	}
}

func (o *methodOptions) check() error {
	if o.method == "" {
		return fail.Usagef("--method is missing; name the direct method")
	}
	if d := time.Duration(o.timeout); d < minMethodTimeout || d > maxMethodTimeout {
		return fail.Usagef("--timeout %v is not within 5s to 300s", &o.timeout)
	}
	if time.Duration(o.connectTimeout) > maxMethodTimeout {
		return fail.Usagef("--connect-timeout %v is not within 0s to 300s", &o.connectTimeout)
	}
	return nil
}

// call builds the method call, which reads the payload.
func (o *methodOptions) call(s output.Streams) (hubrest.Method, error) {
	m := hubrest.Method{Name: o.method, ResponseTimeout: time.Duration(o.timeout), ConnectTimeout: time.Duration(o.connectTimeout)}
	if o.payload == "" {
		return m, nil
	}
	payload, err := command.ReadJSON(s, "--payload", o.payload)
	m.Payload = payload
	return m, err
}

type methodInvokeOptions struct {
	target.Service
	on   identityOptions
	call methodOptions
}

func methodInvokeCommand(s output.Streams) *urfave.Command {
	var o methodInvokeOptions
	return command.Leaf(&urfave.Command{
		Name:      "invoke",
		ArgsUsage: "[DEVICE] [METHOD]",
		Usage:     "call a direct method and print the device's answer",
		Description: "For example:\n" +
			"   iotdm service method invoke --device device-1 --method reboot --payload '{\"delay\": 5}'\n\n" +
			"Without --payload the device gets null. A call that has no payload at all reaches it as an empty body, on which\n" +
			"devices that read JSON fail; this program sends none.\n\n" +
			"Exits with 1 when the device answers with a status other than 2xx, or with what is not JSON.",
		Flags: command.Concat(o.on.flags(), o.call.flags(), o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			return invokeMethod(ctx.Context, s, o)
		},
	})
}

// Check refuses options that make no sense together.
func (o *methodInvokeOptions) Check() error {
	return fail.First(o.on.check(), o.call.check(), o.Output.Check())
}

func invokeMethod(ctx context.Context, s output.Streams, o methodInvokeOptions) error {
	call, err := o.call.call(s)
	if err != nil {
		return err
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := client.InvokeMethod(ctx, o.on.target(), call)
	if err != nil {
		return t.ExplainMethod(ctx, err, o.on.target())
	}
	if err := o.Output.Print(s, output.Result{Value: answerDocument(answer)}); err != nil {
		return err
	}
	return target.CheckAnswer(o.on.target(), call.Name, answer)
}

// answerDocument is an answer as "az iot hub invoke-device-method" prints it.
type answerDocument struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"`
}
