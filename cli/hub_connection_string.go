package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/sas"
)

type hubConnectionStringOptions struct {
	hub            hubOptions
	output         outputOptions
	policy         string
	device, module string
	host           string
}

func hubConnectionStringCommand(s streams) *urfave.Command {
	var o hubConnectionStringOptions
	return leaf(&urfave.Command{
		Name:  "connection-string",
		Usage: "print a connection string of the local hub, with its key",
		Description: "For example:\n" +
			"   iotdm hub connection-string --policy service\n" +
			"   iotdm hub connection-string --device device-1 --host iotdm.localhost",
		Flags: concat([]urfave.Flag{
			policyFlag(&o.policy, "for the shared access policy `NAME` (default: iothubowner)"),
			deviceFlag(&o.device, "for the device `ID`"),
			moduleFlag(&o.module, "for the module `ID` of the device"),
			&urfave.StringFlag{Name: "host", Destination: &o.host, Usage: "with the host name `NAME`"},
			dataFlag(&o.hub.data),
		}, o.output.flags()),
		Action: func(ctx *urfave.Context) error {
			switch {
			case o.module != "" && o.device == "":
				return missingDevice
			case o.device != "" && o.policy != "":
				return usagef("--policy and --device ask for two different connection strings; give one")
			}
			if err := o.output.check(); err != nil {
				return err
			}
			return printConnectionString(ctx.Context, s, o)
		},
	})
}

func printConnectionString(ctx context.Context, s streams, o hubConnectionStringOptions) error {
	info, err := readLocalHub(o.hub.data)
	if err != nil {
		return err
	}
	var c sas.ConnectionString
	if o.device != "" {
		c, err = o.identityConnection(ctx, s, info)
	} else {
		c, err = policyConnection(info, o.policy, o.host)
	}
	if err != nil {
		return err
	}
	v := struct {
		ConnectionString string `json:"connectionString"`
	}{c.Format()}
	return o.output.print(s, result{value: v, text: func(w io.Writer) error {
		_, err := fmt.Fprintln(w, v.ConnectionString)
		return err
	}})
}

// identityConnection asks the hub, which has to be running, for the key.
func (o *hubConnectionStringOptions) identityConnection(ctx context.Context, s streams, info hub.Info) (sas.ConnectionString, error) {
	t, err := o.hub.localHub("")
	if err != nil {
		return sas.ConnectionString{}, err
	}
	if err := t.become(ctx, s, deviceChoice{device: o.device, module: o.module}); err != nil {
		return sas.ConnectionString{}, err
	}
	t.connection.HostName = hostWithPort(cmp.Or(o.host, info.HostName), info.MQTTSAddr, mqttsPort)
	return t.connection, nil
}
