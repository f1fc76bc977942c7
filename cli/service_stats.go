package cli

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

func statsCommand(s streams) *urfave.Command {
	var o serviceOptions
	return leaf(&urfave.Command{
		Name:        "stats",
		Usage:       "count devices: registered, enabled, connected",
		Description: "For example:\n   iotdm service stats --jq .connectedDeviceCount",
		Flags:       o.flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.output.check(); err != nil {
				return err
			}
			return printStats(ctx.Context, s, o)
		},
	})
}

func printStats(ctx context.Context, s streams, o serviceOptions) error {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	var v struct {
		hubrest.DeviceStatistics
		Connected int64 `json:"connectedDeviceCount"`
	}
	if v.DeviceStatistics, err = client.DeviceStatistics(ctx); err != nil {
		return t.explain(ctx, err, noIdentity)
	}
	if v.Connected, err = client.ConnectedDevices(ctx); err != nil {
		return t.explain(ctx, err, noIdentity)
	}
	return o.output.print(s, result{value: v, columns: []column{
		{"DEVICES", "totalDeviceCount"},
		{"ENABLED", "enabledDeviceCount"},
		{"DISABLED", "disabledDeviceCount"},
		{"CONNECTED", "connectedDeviceCount"},
	}})
}
