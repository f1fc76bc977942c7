package hub

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

type hubConnectionStringOptions struct {
	hub            target.Options
	output         output.Options
	policy         string
	device, module string
	eventHub       bool
	emulator       bool
	dps            bool
	host           string
}

func hubConnectionStringCommand(s output.Streams) *urfave.Command {
	var o hubConnectionStringOptions
	return command.Leaf(&urfave.Command{
		Name:  "connection-string",
		Usage: "print a connection string of the local hub, with its key",
		Description: "With --event-hub it is for clients of Event Hubs, which read what devices send. With --emulator too,\n" +
			"these use a hub that was started with --amqp-addr, without its certificate. With --dps it is for clients\n" +
			"of the provisioning service, who manage enrollments. For example:\n" +
			"   iotdm hub connection-string --policy service\n" +
			"   iotdm hub connection-string --policy service --event-hub\n" +
			"   iotdm hub connection-string --dps\n" +
			"   iotdm hub connection-string --device device-1 --host iotdm.localhost",
		Flags: command.Concat([]urfave.Flag{
			command.PolicyFlag(&o.policy, "for the shared access policy `NAME` (default: iothubowner, with --dps provisioningserviceowner)"),
			command.DeviceFlag(&o.device, "for the device `ID`"),
			command.ModuleFlag(&o.module, "for the module `ID` of the device"),
			&urfave.BoolFlag{Name: "event-hub", Destination: &o.eventHub, DisableDefaultText: true, Usage: "for clients of Event Hubs"},
			&urfave.BoolFlag{Name: "emulator", Destination: &o.emulator, DisableDefaultText: true, Usage: "for clients of Event Hubs, without TLS"},
			&urfave.BoolFlag{Name: "dps", Destination: &o.dps, DisableDefaultText: true, Usage: "for clients of the provisioning service"},
			hostFlag(&o.host),
			localhub.Flag(&o.hub.Data),
		}, o.output.Flags()),
		Action: func(ctx *urfave.Context) error {
			switch {
			case o.module != "" && o.device == "":
				return command.MissingDevice
			case o.device != "" && o.policy != "":
				return fail.Usagef("--policy and --device ask for two different connection strings; give one")
			case o.device != "" && (o.eventHub || o.emulator):
				return fail.Usagef("events are read with the key of a policy; leave out --device, or --event-hub")
			case o.dps && (o.eventHub || o.emulator || o.device != ""):
				return fail.Usagef("--dps asks for the connection string of a policy of the provisioning service; leave out --event-hub, --emulator and --device")
			case strings.Contains(o.device+o.module, ";"):
				return fail.Usagef("an id with \";\" does not fit into a connection string, where it ends a member; name it with --device beside the connection string of a policy")
			}
			if err := o.output.Check(); err != nil {
				return err
			}
			return printConnectionString(ctx.Context, s, o)
		},
	})
}

// hostFlag is for commands that print connection strings.
func hostFlag(host *string) urfave.Flag {
	return &urfave.StringFlag{Name: "host", Destination: host,
		Usage: "with the host name `NAME` (default: the first --host of the hub, or where it listens)"}
}

// checkHost tells of a --host that clients will refuse.
func checkHost(s output.Streams, info node.Info, host string) {
	if name, _ := localhub.SplitPort(host); host != "" && !info.Certifies(strings.Trim(name, "[]")) {
		s.Note("The hub's certificate does not name %s, and so clients refuse it; start the hub with --host %s.", name, name)
	}
}

func printConnectionString(ctx context.Context, s output.Streams, o hubConnectionStringOptions) error {
	info, err := localhub.Read(o.hub.Data)
	if err != nil {
		return err
	}
	checkHost(s, info, o.host)
	var c interface{ Format() string }
	switch {
	case o.device != "":
		c, err = o.identityConnection(ctx, s, info)
	case o.emulator && info.AMQPAddr == "":
		return fail.Errorf(fail.Failed, "the hub does not listen for AMQP without TLS; start it with \"iotdm hub run --amqp-addr 127.0.0.1:5672\"")
	case o.eventHub || o.emulator:
		c, err = localhub.EventHubConnection(info, o.policy, o.host, o.emulator)
	default:
		policy := o.policy
		if o.dps {
			policy = cmp.Or(policy, localhub.ProvisioningPolicy)
		}
		c, err = localhub.PolicyConnection(info, policy, o.host)
	}
	if err != nil {
		return err
	}
	v := struct {
		ConnectionString string `json:"connectionString"`
	}{c.Format()}
	return o.output.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		_, err := fmt.Fprintln(w, v.ConnectionString)
		return err
	}})
}

// identityConnection asks the hub, which has to be running, for the key.
func (o *hubConnectionStringOptions) identityConnection(ctx context.Context, s output.Streams, info node.Info) (sas.ConnectionString, error) {
	t, err := o.hub.LocalHub("")
	if err != nil {
		return sas.ConnectionString{}, err
	}
	if err := t.Become(ctx, s, target.Choice{Device: o.device, Module: o.module}); err != nil {
		return sas.ConnectionString{}, err
	}
	t.Connection.HostName = localhub.HostWithPort(cmp.Or(o.host, info.HostName), info.MQTTSAddr, localhub.MQTTSPort)
	if _, port := localhub.SplitPort(t.Connection.HostName); port != "" {
		s.Note("Device SDKs have port %s built in and can't use this one. For them start the hub with --mqtts-addr HOST:%s;\n"+
			"\"iotdm device\" and other MQTT clients take port %s, see \"iotdm hub mqtt-settings\".", localhub.MQTTSPort, localhub.MQTTSPort, port)
	}
	return t.Connection, nil
}
