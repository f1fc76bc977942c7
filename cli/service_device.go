package cli

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

// deviceOptions are those of a command about one device identity.
type deviceOptions struct {
	serviceOptions
	device string
}

func (o *deviceOptions) flags() []urfave.Flag {
	return concat([]urfave.Flag{deviceFlag(&o.device, "the device `ID`")}, o.serviceOptions.flags())
}

func (o *deviceOptions) check() error { return firstError(requireDevice(o.device), o.output.check()) }

func (o *deviceOptions) target() hubrest.Target { return hubrest.Target{DeviceID: o.device} }

func (o *deviceOptions) do(ctx context.Context, s streams, call registryCall) error {
	return o.call(ctx, s, o.target(), call)
}

func deviceGetCommand(s streams) *urfave.Command {
	var o deviceOptions
	return leaf(&urfave.Command{
		Name:        "get",
		Usage:       "print a device identity, with its keys",
		Description: "For example:\n   iotdm service device get --device device-1 --jq .connectionState",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				return client.Device(ctx, o.device)
			})
		},
	})
}

func deviceDeleteCommand(s streams) *urfave.Command {
	var o deviceOptions
	var etag string
	return leaf(&urfave.Command{
		Name:        "delete",
		Usage:       "remove a device identity with its twin and modules",
		Description: "For example:\n   iotdm service device delete --device device-1",
		Flags:       concat(o.flags(), []urfave.Flag{etagFlag(&etag)}),
		Action: func(ctx *urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
				err := client.DeleteDevice(ctx, o.device, etag)
				if err == nil {
					s.note("Deleted device %s", o.device)
				}
				return nil, err
			})
		},
	})
}

func deviceEnableCommand(s streams) *urfave.Command {
	return deviceStatusCommand(s, hubrest.Enabled, &urfave.Command{
		Name:        "enable",
		Usage:       "let a device connect again",
		Description: "For example:\n   iotdm service device enable --device device-1",
	})
}

func deviceDisableCommand(s streams) *urfave.Command {
	return deviceStatusCommand(s, hubrest.Disabled, &urfave.Command{
		Name:        "disable",
		Usage:       "refuse a device, and end its connection",
		Description: "For example:\n   iotdm service device disable --device device-1 --status-reason stolen",
	})
}

func deviceStatusCommand(s streams, status hubrest.Status, c *urfave.Command) *urfave.Command {
	var o deviceOptions
	var reason string
	c.Flags = concat(o.flags(), []urfave.Flag{statusReasonFlag(&reason)})
	c.Action = func(ctx *urfave.Context) error {
		if err := o.check(); err != nil {
			return err
		}
		return o.do(ctx.Context, s, func(ctx context.Context, client *hubrest.Client) (any, error) {
			d, err := client.Device(ctx, o.device)
			if err != nil {
				return nil, err
			}
			d.Status, d.StatusReason = status, reason
			return client.UpdateDevice(ctx, d)
		})
	}
	return leaf(c)
}

func statusReasonFlag(reason *string) urfave.Flag {
	return &urfave.StringFlag{Name: "status-reason", Destination: reason, Usage: "`WHY`, in up to 128 characters"}
}
