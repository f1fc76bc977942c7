package cli

import (
	"context"

	urfave "github.com/urfave/cli/v2"
)

// deviceColumns are what the table of devices shows.
var deviceColumns = []column{
	{"DEVICE", "deviceId"},
	{"STATUS", "status"},
	{"CONNECTION", "connectionState"},
	{"AUTHENTICATION", "authentication.type"},
	{"LAST ACTIVITY", "lastActivityTime"},
}

type deviceListOptions struct {
	serviceOptions
	top int
}

func deviceListCommand(s streams) *urfave.Command {
	var o deviceListOptions
	return leaf(&urfave.Command{
		Name:  "list",
		Usage: "list device identities, up to 1000",
		Description: "For example:\n" +
			"   iotdm service device list\n" +
			"   iotdm service device list --jq '.[].deviceId'",
		Flags: concat([]urfave.Flag{
			&urfave.IntFlag{Name: "top", Destination: &o.top, Value: 1000, Usage: "list at most `N` devices, 1 to 1000"},
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if o.top < 1 || o.top > 1000 {
				return usagef("--top %d is not within 1 to 1000", o.top)
			}
			if err := o.output.check(); err != nil {
				return err
			}
			return listDevices(ctx.Context, s, o)
		},
	})
}

func listDevices(ctx context.Context, s streams, o deviceListOptions) error {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	devices, err := client.Devices(ctx, o.top)
	if err != nil {
		return t.explain(ctx, err, noIdentity)
	}
	if len(devices) == o.top {
		s.note("There may be more than these %d devices", o.top)
	}
	return o.output.print(s, result{value: devices, columns: deviceColumns})
}
