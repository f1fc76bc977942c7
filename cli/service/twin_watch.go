package service

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
)

type twinWatchOptions struct {
	target.Service
	on       identityOptions
	where    string
	interval command.Seconds
}

func twinWatchCommand(s output.Streams) *urfave.Command {
	o := twinWatchOptions{interval: command.Seconds(2 * time.Second)}
	return command.Leaf(&urfave.Command{
		Name:      "watch",
		ArgsUsage: "[DEVICE]",
		Usage:     "print each change of the twin, and who made it, until Ctrl-C",
		Description: "Follows the changes as they come. A hub that does not stream them, such as\n" +
			"Azure IoT Hub, is asked for the twin again and again instead: then nobody\n" +
			"knows who made a change, and of several between two readings the last one\n" +
			"shows. With --output json each change is a line of JSON. For example:\n" +
			"   iotdm service twin watch --device device-1\n" +
			"   iotdm service twin watch --where \"tags.site = 'north'\" -o json",
		Flags: command.Concat(o.on.flags(), []urfave.Flag{
			&urfave.StringFlag{Name: "where", Destination: &o.where, Usage: "all devices that meet the query `CONDITION` now, or '*'"},
			&urfave.GenericFlag{Name: "interval", Value: &o.interval, Usage: "how `LONG` to wait between two readings of twins that are not streamed"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			t, client, err := o.Open(s)
			if err != nil {
				return err
			}
			defer client.Close()
			w := &twinWatcher{Streams: s, target: t, client: client, o: o}
			return w.run(ctx.Context)
		},
	})
}

// Check refuses options that make no sense together.
func (o *twinWatchOptions) Check() error {
	switch {
	case o.where != "" && (o.on.device != "" || o.on.module != ""):
		return fail.Usagef("give either --device or --where")
	case o.where == "" && o.on.device == "":
		return fail.Usagef("--device is missing; name the device, or devices by --where")
	case o.interval == 0:
		return fail.Usagef("--interval must be longer than 0s")
	}
	return o.Output.Check()
}

// maxWatched bounds the twins that are watched, whose documents are kept.
const maxWatched = 10_000

// read returns the twins to watch as they are now.
func (o *twinWatchOptions) read(ctx context.Context, client *hubrest.Client) (map[hubrest.Target]hubrest.Twin, error) {
	if o.where == "" {
		twin, err := client.Twin(ctx, o.on.target())
		return map[hubrest.Target]hubrest.Twin{o.on.target(): twin}, err
	}
	twins := make(map[hubrest.Target]hubrest.Twin)
	for row, err := range client.Query(ctx, "SELECT * FROM devices"+condition.Where(o.where), 0) {
		if err != nil {
			return nil, err
		}
		var t hubrest.Twin
		if err := json.Unmarshal(row, &t); err != nil {
			return nil, fmt.Errorf("find the devices: the hub's answer is not as documented: %w", err)
		}
		if len(twins) == maxWatched {
			return nil, fail.Errorf(fail.Failed, "more than %d devices match --where; watch fewer", maxWatched)
		}
		twins[hubrest.Target{DeviceID: t.DeviceID}] = t
	}
	return twins, nil
}
