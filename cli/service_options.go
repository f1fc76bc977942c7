package cli

import (
	"log/slog"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// serviceOptions are what every service command has.
type serviceOptions struct {
	hub     hubOptions
	hubName string
	output  outputOptions
}

func (o *serviceOptions) flags() []urfave.Flag {
	return concat(o.hubFlags(), o.output.flags())
}

// hubFlags are for a command whose result has a format of its own.
func (o *serviceOptions) hubFlags() []urfave.Flag {
	return concat(o.hub.flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "hub-name", Category: "Which hub", Destination: &o.hubName, EnvVars: []string{"IOTDM_HUB_NAME"},
			Usage: "the hub `HOST`, with Entra ID instead of a key"},
		limitFlag(),
	})
}

// open finds the hub. The caller closes the client.
func (o *serviceOptions) open(s streams) (target, *hubrest.Client, error) {
	if o.hub.log == nil {
		o.hub.log = slog.New(retryLog{s})
	}
	if o.hubName != "" {
		return o.openWithEntra()
	}
	t, err := o.hub.service(s)
	if err != nil {
		return t, nil, err
	}
	client, err := t.client()
	return t, client, err
}

func (o *serviceOptions) openWithEntra() (target, *hubrest.Client, error) {
	t, credential, err := o.entraTarget()
	if err != nil {
		return t, nil, err
	}
	client, err := hubrest.New(hubrest.Options{ConnectionString: t.connection, Credential: credential, Addr: t.httpsAddr, TLS: t.tls, Logger: t.log})
	return t, client, err
}

// entraTarget finds the hub by its name. Who calls is in the environment, in
// the variables of Azure's tools, or is the managed identity of the machine.
func (o *serviceOptions) entraTarget() (target, hubrest.Credential, error) {
	if o.hub.connectionString != "" {
		return target{}, nil, usagef("--hub-name goes without --connection-string: one is for Entra ID, the other for keys")
	}
	if !strings.Contains(o.hubName, ".") && !strings.HasPrefix(o.hubName, "localhost") {
		return target{}, nil, usagef("--hub-name %q is not a host name; a hub in Azure has one such as %s.azure-devices.net", o.hubName, o.hubName)
	}
	credential, err := hubrest.CredentialFromEnvironment(nil)
	if err != nil {
		return target{}, nil, failf(statusUnauthorized, "Entra ID: %v", err)
	}
	t, err := o.hub.target(sas.ConnectionString{HostName: o.hubName})
	t.entra = true
	return t, credential, err
}
