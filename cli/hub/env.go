package hub

import (
	"cmp"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/output"
)

type hubEnvOptions struct {
	data   string
	host   string
	output output.Options
}

func hubEnvCommand(s output.Streams) *urfave.Command {
	var o hubEnvOptions
	return command.Leaf(&urfave.Command{
		Name:  "env",
		Usage: "print what lets programs with an official SDK use the local hub",
		Description: "For example:\n" +
			"   eval \"$(iotdm hub env)\"\n" +
			"   python3 service.py",
		Flags: command.Concat([]urfave.Flag{hostFlag(&o.host), localhub.Flag(&o.data)}, o.output.Flags()),
		Action: func(*urfave.Context) error {
			if err := o.output.Check(); err != nil {
				return err
			}
			return printHubEnv(s, o)
		},
	})
}

func printHubEnv(s output.Streams, o hubEnvOptions) error {
	info, err := localhub.Read(o.data)
	if err != nil {
		return err
	}
	checkHost(s, info, o.host)
	owner, err := localhub.PolicyConnection(info, localhub.OwnerPolicy, o.host)
	if err != nil {
		return err
	}
	events, err := localhub.EventHubConnection(info, localhub.OwnerPolicy, o.host, false)
	if err != nil {
		return err
	}
	// What an older hub has left in the folder has no provisioning service.
	var provisioning, host string
	if info.IDScope != "" {
		policy, err := localhub.PolicyConnection(info, localhub.ProvisioningPolicy, o.host)
		if err != nil {
			return err
		}
		provisioning = policy.Format()
		host = localhub.HostWithPort(cmp.Or(o.host, info.HostName), info.MQTTSAddr, localhub.MQTTSPort)
	}
	v := struct {
		ConnectionString string `json:"IOTHUB_CONNECTION_STRING"`
		EventHub         string `json:"EVENTHUB_CONNECTION_STRING"`
		ProvisioningHost string `json:"PROVISIONING_HOST,omitempty"`
		IDScope          string `json:"PROVISIONING_IDSCOPE,omitempty"`
		Provisioning     string `json:"PROVISIONING_CONNECTION_STRING,omitempty"`
		NodeProvisioning string `json:"IOT_PROVISIONING_SERVICE_CONNECTION_STRING,omitempty"`
		PnPHost          string `json:"IOTHUB_DEVICE_DPS_ENDPOINT,omitempty"`
		PnPIDScope       string `json:"IOTHUB_DEVICE_DPS_ID_SCOPE,omitempty"`
		SSLCertFile      string `json:"SSL_CERT_FILE"`
		RequestsBundle   string `json:"REQUESTS_CA_BUNDLE"`
		NodeExtra        string `json:"NODE_EXTRA_CA_CERTS"`
	}{
		ConnectionString: owner.Format(),
		EventHub:         events.Format(),
		ProvisioningHost: host, IDScope: info.IDScope, PnPHost: host, PnPIDScope: info.IDScope,
		Provisioning: provisioning, NodeProvisioning: provisioning,
		// The first two replace the system's roots, so they name a bundle that has those too.
		SSLCertFile:    info.BundleFile,
		RequestsBundle: info.BundleFile,
		NodeExtra:      info.CAFile,
	}
	return o.output.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		for _, variable := range []struct{ name, value string }{
			{"IOTHUB_CONNECTION_STRING", v.ConnectionString},
			{"EVENTHUB_CONNECTION_STRING", v.EventHub},
			{"PROVISIONING_HOST", v.ProvisioningHost},
			{"PROVISIONING_IDSCOPE", v.IDScope},
			{"PROVISIONING_CONNECTION_STRING", v.Provisioning},
			{"IOT_PROVISIONING_SERVICE_CONNECTION_STRING", v.NodeProvisioning},
			{"IOTHUB_DEVICE_DPS_ENDPOINT", v.PnPHost},
			{"IOTHUB_DEVICE_DPS_ID_SCOPE", v.PnPIDScope},
			{"SSL_CERT_FILE", v.SSLCertFile},
			{"REQUESTS_CA_BUNDLE", v.RequestsBundle},
			{"NODE_EXTRA_CA_CERTS", v.NodeExtra},
		} {
			if variable.value == "" {
				continue
			}
			if _, err := fmt.Fprintf(w, "export %s=%s\n", variable.name, command.ShellQuote(variable.value)); err != nil {
				return err
			}
		}
		return nil
	}})
}
