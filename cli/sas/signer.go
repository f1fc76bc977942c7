package sas

import (
	"context"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/sas"
)

// signerOptions say whose key signs or checks a token.
type signerOptions struct {
	hub            target.Options
	device, module string
	policy         string
}

func (o *signerOptions) flags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		command.DeviceFlag(&o.device, "use the key of the device `ID`"),
		command.ModuleFlag(&o.module, "use the key of the module `ID` of the device"),
		command.PolicyFlag(&o.policy, "use the key of the policy `NAME` of the local hub (default: iothubowner)"),
		command.LimitFlag(),
	}, o.hub.Flags())
}

func (o *signerOptions) check() error {
	switch {
	case o.module != "" && o.device == "":
		return command.MissingDevice
	case o.device != "" && o.policy != "":
		return fail.Usagef("--policy and --device name two different keys; give one")
	}
	return nil
}

// connection finds the signer and its key.
func (o *signerOptions) connection(ctx context.Context, s output.Streams) (sas.ConnectionString, error) {
	t, err := o.find(ctx, s)
	if err == nil && t.Connection.SharedAccessKey == "" {
		err = fail.Usagef("the connection string has no SharedAccessKey")
	}
	return t.Connection, err
}

func (o *signerOptions) find(ctx context.Context, s output.Streams) (target.Target, error) {
	if o.device != "" {
		return o.hub.Device(ctx, s, target.Choice{Device: o.device, Module: o.module})
	}
	c, found, err := o.hub.Given(s, target.ServiceVariables) // a device's connection string is as good here
	if err == nil && found && o.policy != "" && !strings.EqualFold(o.policy, c.SharedAccessKeyName) {
		err = fail.Usagef("--policy goes with the local hub; the connection string has a key of its own")
	}
	if err != nil {
		return target.Target{}, err
	}
	if found {
		return o.hub.Target(c)
	}
	return o.hub.LocalHub(o.policy)
}
