package target

import (
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
)

// Provisioning holds the options of every command about the Device Provisioning
// Service: a connection string given as a flag, else one in the environment, else
// that of the hub on this machine.
type Provisioning struct {
	hub    Options
	name   string // of the service, for Entra ID
	Output output.Options
}

// Flags returns the flags that fill o.
func (o *Provisioning) Flags() []urfave.Flag {
	return command.Concat(o.ServiceFlags(), o.Output.Flags())
}

// ServiceFlags are Flags for a command whose result has a format of its own.
func (o *Provisioning) ServiceFlags() []urfave.Flag {
	return command.Concat(o.hub.Flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "dps-name", Aliases: []string{"n"}, Category: "Which hub", Destination: &o.name, EnvVars: []string{"IOTDM_DPS_NAME"},
			Usage: "the provisioning service `HOST`, with Entra ID instead of a key"},
		command.LimitFlag(),
	})
}

// Open finds the service. The caller closes the client.
func (o *Provisioning) Open(s output.Streams) (Target, *hubrest.ProvisioningClient, error) {
	o.hub.logRetries(s)
	t, err := o.find(s)
	if err != nil {
		return t, nil, err
	}
	t.provisioning = true
	client, err := hubrest.NewProvisioning(hubrest.Options{ConnectionString: t.Connection, Credential: t.entra, Addr: t.HTTPSAddr, TLS: t.TLS, Logger: t.log, Now: t.Now})
	if err != nil {
		return t, nil, badConnectionString("--connection-string", err)
	}
	return t, client, nil
}

func (o *Provisioning) find(s output.Streams) (Target, error) {
	if o.name != "" {
		return o.hub.entraTarget("--dps-name", o.name, "azure-devices-provisioning.net")
	}
	c, source, err := o.hub.GivenBy(s, ProvisioningVariables)
	switch {
	case err != nil:
		return Target{}, err
	case source == "":
		return o.hub.LocalHub(localhub.ProvisioningPolicy)
	case c.DeviceID != "":
		return Target{}, fail.Usagef("%s: it is that of device %q; enrollments need that of a policy of the provisioning service, such as %s", source, c.DeviceID, localhub.ProvisioningPolicy)
	case strings.HasSuffix(strings.ToLower(c.HostName), ".azure-devices.net"):
		return Target{}, fail.Usagef("%s: %s is an IoT hub; give the connection string of its provisioning service, which is at NAME.azure-devices-provisioning.net", source, c.HostName)
	}
	return o.hub.Target(c)
}

// Each is [Service.Each] for the provisioning service.
func (o *Provisioning) Each(ctx *urfave.Context, s output.Streams, e ErrandWith[*hubrest.ProvisioningClient]) error {
	return runEach(ctx, s, &o.Output, o.Open, e)
}
