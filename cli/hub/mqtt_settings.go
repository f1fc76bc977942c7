package hub

import (
	"context"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/mqttsetup"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
)

type hubMQTTSettingsOptions struct {
	hub            target.Options
	device, module string
	host           string
	link           target.LinkOptions
	settings       mqttsetup.Options
}

func hubMQTTSettingsCommand(s output.Streams) *urfave.Command {
	o := hubMQTTSettingsOptions{settings: mqttsetup.NewOptions()}
	return command.Leaf(&urfave.Command{
		Name:      "mqtt-settings",
		Usage:     "print what to type into an MQTT client, to be a device of the local hub",
		ArgsUsage: "[DEVICE]",
		Description: "Host, port, CA, client id, user name, password and topics; the password is a token that is signed\n" +
			"now. See \"iotdm help mqtt\". For example:\n" +
			"   iotdm hub mqtt-settings --device device-1\n" +
			"   iotdm hub mqtt-settings --device device-1 --mosquitto mqtt --duration 720h\n" +
			"   iotdm hub mqtt-settings --device device-1 --jq .password",
		Flags: command.Concat([]urfave.Flag{
			command.DeviceFlag(&o.device, "be the device `ID`"),
			command.ModuleFlag(&o.module, "be the module `ID` of the device"),
			hostFlag(&o.host),
			localhub.Flag(&o.hub.Data),
		}, o.link.CredentialFlags(), o.settings.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := command.RequireDevice(o.device); err != nil {
				return err
			}
			if err := o.settings.Check(); err != nil {
				return err
			}
			return o.print(ctx.Context, s)
		},
	})
}

func (o *hubMQTTSettingsOptions) print(ctx context.Context, s output.Streams) error {
	link, err := o.link.Link()
	if err != nil {
		return err
	}
	t, err := o.hub.LocalHub("")
	if err != nil {
		return err
	}
	if err := t.Become(ctx, s, target.Choice{Device: o.device, Module: o.module, Link: link}); err != nil {
		return err
	}
	if t.Link = link; o.host != "" {
		info, err := localhub.Read(o.hub.Data)
		if err != nil {
			return err
		}
		checkHost(s, info, o.host)
		t.Connection.HostName = o.host
	}
	if t.Disabled {
		s.Note("Device %s is disabled; enable it with \"iotdm service device enable --device %s\".", o.device, command.ShellWord(o.device))
	}
	again := "iotdm hub mqtt-settings --device " + command.ShellWord(o.device)
	if o.module != "" {
		again += " --module " + command.ShellWord(o.module)
	}
	return o.settings.Print(s, t, again)
}
