package device

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/mqttsetup"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
)

type deviceMQTTSettingsOptions struct {
	as       actAsOptions
	settings mqttsetup.Options
}

func deviceMQTTSettingsCommand(s output.Streams) *urfave.Command {
	o := deviceMQTTSettingsOptions{settings: mqttsetup.NewOptions()}
	return command.Leaf(&urfave.Command{
		Name:      "mqtt-settings",
		Usage:     "print what to type into an MQTT client, to be the device of a connection string",
		ArgsUsage: "[DEVICE]",
		Description: "Host, port, client id, user name, password and topics, for Azure IoT Hub as for a hub of your own. Of\n" +
			"a device's connection string no hub is asked. See \"iotdm help mqtt\". For example:\n" +
			"   iotdm device mqtt-settings --connection-string @device\n" +
			"   iotdm device mqtt-settings --device device-1 --mosquitto mqtt --duration 720h",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.as.device, "be the device `ID`"),
			command.ModuleFlag(&o.as.module, "be the module `ID` of the device"),
		}, o.settings.Flags(), o.as.link.CredentialFlags(), o.as.hub.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.settings.Check(); err != nil {
				return err
			}
			return o.print(ctx.Context, s)
		},
	})
}

func (o *deviceMQTTSettingsOptions) print(ctx context.Context, s output.Streams) error {
	t, err := o.as.find(ctx, s, target.Choice{})
	if err != nil {
		return err
	}
	again := "iotdm device mqtt-settings"
	if o.as.device != "" {
		again += " --device " + command.ShellWord(o.as.device)
	}
	if o.as.module != "" {
		again += " --module " + command.ShellWord(o.as.module)
	}
	return o.settings.Print(s, t, again)
}
