package hub

import (
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// provisioningOptions are those of "hub run" about the provisioning service.
type provisioningOptions struct {
	idScope   string
	assigning command.Seconds
	linked    urfave.StringSlice
	webhooks  urfave.StringSlice
}

func (o *provisioningOptions) flags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "id-scope", Destination: &o.idScope, EnvVars: []string{"IOTDM_HUB_ID_SCOPE"},
			Usage: "provision devices that name `SCOPE`, such as 0ne00ABCDEF (default: one of the hub's CA)"},
		&urfave.GenericFlag{Name: "assigning", Value: &o.assigning, EnvVars: []string{"IOTDM_HUB_ASSIGNING"},
			Usage: "have devices that register ask again for so `LONG`"},
		&urfave.StringSliceFlag{Name: "linked-hub", Destination: &o.linked, EnvVars: []string{"IOTDM_HUB_LINKED_HUB"},
			Usage: "assign devices to the hub of this connection `STRING`, or @FILE, too, repeatable"},
		&urfave.StringSliceFlag{Name: "webhook-host", Destination: &o.webhooks, EnvVars: []string{"IOTDM_HUB_WEBHOOK_HOST"},
			Usage: "ask webhooks of this `HOST`, besides this machine, for allocations, repeatable"},
	}
}

// set checks the options and gives them to a hub.
func (o *provisioningOptions) set(s output.Streams, to *node.Options) error {
	if o.idScope != "" {
		if err := node.CheckIDScope(o.idScope); err != nil {
			return fail.Usagef("--id-scope: %v", err)
		}
	}
	for _, given := range o.linked.Value() {
		text, err := command.ReadValue(s, "--linked-hub", given)
		if err != nil {
			return err
		}
		c, err := sas.ParseConnectionString(text)
		if err == nil {
			err = node.CheckLinkedHub(c)
		}
		if err != nil {
			return fail.Usagef("--linked-hub: %v", err)
		}
		to.LinkedHubs = append(to.LinkedHubs, c)
	}
	to.IDScope, to.Assigning, to.WebhookHosts = o.idScope, time.Duration(o.assigning), o.webhooks.Value()
	return nil
}
