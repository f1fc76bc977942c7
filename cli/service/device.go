package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

// deviceOptions are those of a command about one device identity.
type deviceOptions struct {
	target.Service
	device string
}

func (o *deviceOptions) Flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{command.DeviceFlag(&o.device, "the device `ID`")}, o.Service.Flags())
}

func (o *deviceOptions) Check() error {
	return fail.First(command.RequireDevice(o.device), o.Output.Check())
}

func (o *deviceOptions) About() hubrest.Target { return hubrest.Target{DeviceID: o.device} }

func (o *deviceOptions) do(ctx context.Context, s output.Streams, call target.Call) error {
	return o.Call(ctx, s, o.About(), call)
}

func deviceGetCommand(s output.Streams) *urfave.Command {
	var o deviceOptions
	return target.EachCall(s, &urfave.Command{
		Name:      "get",
		Usage:     "print device identities, with their keys",
		ArgsUsage: "[DEVICE...]",
		Description: "A hub of iotdm also says, as .iotdm, when and why a device was last refused and\n" +
			"disconnected. For example:\n" +
			"   iotdm service device get device-1 --jq .connectionState\n" +
			"   iotdm service device get device-1 --jq .iotdm.lastRefusal\n" +
			"   iotdm service device get device-1 device-2 -o table",
	}, &o, deviceColumns, func(ctx context.Context, client *hubrest.Client) (any, error) {
		d, err := client.Device(ctx, o.device)
		return struct {
			hubrest.Device
			Own *hubrest.Connection `json:"iotdm,omitempty"`
		}{d, connectionOf(ctx, client, o.About())}, err
	})
}

// connectionOf is what a hub of iotdm tells besides an identity: why it is not
// connected. It is nil if there is nothing to tell, and for a hub that is another's or older.
func connectionOf(ctx context.Context, client *hubrest.Client, on hubrest.Target) *hubrest.Connection {
	if !client.OwnHub() {
		return nil
	}
	c, err := client.Connection(ctx, on)
	c.ConnectionState = "" // the identity says it
	if err != nil || c == (hubrest.Connection{}) {
		return nil
	}
	return &c
}

func deviceEnableCommand(s output.Streams) *urfave.Command {
	return deviceStatusCommand(s, hubrest.Enabled, &urfave.Command{
		Name:        "enable",
		Usage:       "let devices connect again",
		ArgsUsage:   "[DEVICE...]",
		Description: "For example:\n   iotdm service device enable device-1 device-2",
	})
}

func deviceDisableCommand(s output.Streams) *urfave.Command {
	return deviceStatusCommand(s, hubrest.Disabled, &urfave.Command{
		Name:        "disable",
		Usage:       "refuse devices, and end their connections",
		ArgsUsage:   "[DEVICE...]",
		Description: "For example:\n   iotdm service device disable device-1 device-2 --status-reason stolen",
	})
}

func deviceStatusCommand(s output.Streams, status hubrest.Status, c *urfave.Command) *urfave.Command {
	var o deviceOptions
	var reason string
	return target.EachCall(s, c, &o, deviceColumns, func(ctx context.Context, client *hubrest.Client) (any, error) {
		d, err := client.Device(ctx, o.device)
		if err != nil {
			return nil, err
		}
		d.Status, d.StatusReason = status, reason
		return client.UpdateDevice(ctx, d)
	}, statusReasonFlag(&reason))
}

func statusReasonFlag(reason *string) urfave.Flag {
	return &urfave.StringFlag{Name: "status-reason", Destination: reason, Usage: "`WHY`, in up to 128 characters"}
}
