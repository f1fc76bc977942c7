package hub

import (
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
	v := struct {
		ConnectionString string `json:"IOTHUB_CONNECTION_STRING"`
		EventHub         string `json:"EVENTHUB_CONNECTION_STRING"`
		SSLCertFile      string `json:"SSL_CERT_FILE"`
		RequestsBundle   string `json:"REQUESTS_CA_BUNDLE"`
		NodeExtra        string `json:"NODE_EXTRA_CA_CERTS"`
	}{
		ConnectionString: owner.Format(),
		EventHub:         events.Format(),
		// The first two replace the system's roots, so they name a bundle that has those too.
		SSLCertFile:    info.BundleFile,
		RequestsBundle: info.BundleFile,
		NodeExtra:      info.CAFile,
	}
	return o.output.Print(s, output.Result{Value: v, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "export IOTHUB_CONNECTION_STRING=%s\nexport EVENTHUB_CONNECTION_STRING=%s\nexport SSL_CERT_FILE=%s\nexport REQUESTS_CA_BUNDLE=%s\nexport NODE_EXTRA_CA_CERTS=%s\n",
			command.ShellQuote(v.ConnectionString), command.ShellQuote(v.EventHub), command.ShellQuote(v.SSLCertFile), command.ShellQuote(v.RequestsBundle), command.ShellQuote(v.NodeExtra))
		return err
	}})
}
