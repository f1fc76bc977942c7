package target

import (
	"log/slog"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// A Service holds the options that every service command has, and is those of a
// command that has no others. It is embedded in the others' options.
type Service struct {
	Hub     Options
	HubName string
	Output  output.Options
}

// Flags returns the flags that fill o.
func (o *Service) Flags() []urfave.Flag {
	return command.Concat(o.HubFlags(), o.Output.Flags())
}

// Check refuses options that make no sense.
func (o *Service) Check() error { return o.Output.Check() }

// About returns NoIdentity: these options are about the hub as a whole.
func (o *Service) About() hubrest.Target { return NoIdentity }

// HubFlags are Flags for a command whose result has a format of its own.
func (o *Service) HubFlags() []urfave.Flag {
	return command.Concat(o.Hub.Flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "hub-name", Category: "Which hub", Destination: &o.HubName, EnvVars: []string{"IOTDM_HUB_NAME"},
			Usage: "the hub `HOST`, with Entra ID instead of a key"},
		command.LimitFlag(),
	})
}

// Open finds the hub. The caller closes the client.
func (o *Service) Open(s output.Streams) (Target, *hubrest.Client, error) {
	o.Hub.logRetries(s)
	if o.HubName != "" {
		return o.openWithEntra()
	}
	t, err := o.Hub.service(s)
	if err != nil {
		return t, nil, err
	}
	client, err := t.Client()
	return t, client, err
}

// logRetries has people told of what is tried again, unless they see all of it.
func (o *Options) logRetries(s output.Streams) {
	if o.Log == nil {
		o.Log = slog.New(retryLog{s})
	}
}

func (o *Service) openWithEntra() (Target, *hubrest.Client, error) {
	t, credential, err := o.EntraTarget()
	if err != nil {
		return t, nil, err
	}
	client, err := hubrest.New(hubrest.Options{ConnectionString: t.Connection, Credential: credential, Addr: t.HTTPSAddr, TLS: t.TLS, Logger: t.log})
	return t, client, err
}

// EntraTarget finds the hub by its name. Who calls is in the environment, in
// the variables of Azure's tools, or has signed in with "az login", or is the
// managed identity of the machine.
func (o *Service) EntraTarget() (Target, azcore.TokenCredential, error) {
	t, err := o.Hub.entraTarget("--hub-name", o.HubName, "azure-devices.net")
	return t, t.entra, err
}

// entraTarget is a service whose name a flag has, and which in Azure is in a domain.
func (o *Options) entraTarget(flag, name, domain string) (Target, error) {
	if o.connectionString != "" {
		return Target{}, fail.Usagef("%s goes without --connection-string: one is for Entra ID, the other for keys", flag)
	}
	if !strings.Contains(name, ".") && !strings.HasPrefix(name, "localhost") {
		return Target{}, fail.Usagef("%s %q is not a host name; in Azure it is one such as %s.%s", flag, name, name, domain)
	}
	credential, err := newCredential(newTokenClient())
	if err != nil {
		return Target{}, fail.Errorf(fail.Unauthorized, "Entra ID: %v", err)
	}
	t, err := o.Target(sas.ConnectionString{HostName: name})
	t.entra = credential
	return t, err
}
