package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func statsCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return command.Leaf(&urfave.Command{
		Name:        "stats",
		Usage:       "count devices: registered, enabled, connected",
		Description: "For example:\n   iotdm service stats --jq .connectedDeviceCount",
		Flags:       o.ServiceFlags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.Output.Check(); err != nil {
				return err
			}
			return printStats(ctx.Context, s, o)
		},
	})
}

func printStats(ctx context.Context, s output.Streams, o target.Service) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	var v struct {
		hubrest.DeviceStatistics
		Connected int64 `json:"connectedDeviceCount"`
	}
	if v.DeviceStatistics, err = client.DeviceStatistics(ctx); err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	if v.Connected, err = client.ConnectedDevices(ctx); err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	return o.Output.Print(s, output.Result{Value: v, Columns: []output.Column{
		{"DEVICES", "totalDeviceCount"},
		{"ENABLED", "enabledDeviceCount"},
		{"DISABLED", "disabledDeviceCount"},
		{"CONNECTED", "connectedDeviceCount"},
	}})
}
