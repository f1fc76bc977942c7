package service

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func statsCommand(s output.Streams) *urfave.Command {
	return target.OneCall(s, &urfave.Command{
		Name:        "stats",
		Usage:       "count devices: registered, enabled, connected",
		Description: "For example:\n   iotdm service stats --jq .connectedDeviceCount",
	}, new(target.Service), func(ctx context.Context, client *hubrest.Client) (_ any, err error) {
		var v struct {
			hubrest.DeviceStatistics
			Connected int64 `json:"connectedDeviceCount"`
		}
		if v.DeviceStatistics, err = client.DeviceStatistics(ctx); err != nil {
			return nil, err
		}
		v.Connected, err = client.ConnectedDevices(ctx)
		return output.Result{Value: v, Columns: []output.Column{
			{"DEVICES", "totalDeviceCount"},
			{"ENABLED", "enabledDeviceCount"},
			{"DISABLED", "disabledDeviceCount"},
			{"CONNECTED", "connectedDeviceCount"},
		}}, err
	})
}
