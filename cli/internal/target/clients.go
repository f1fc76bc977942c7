package target

import (
	"os"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// Clients are all that a service may talk to.
type Clients struct {
	Hub          *hubrest.Client
	Messages     *hubamqp.Client
	Provisioning *hubrest.ProvisioningClient // nil: nobody has said where it is
}

// Close closes them.
func (c Clients) Close() {
	if c.Hub != nil {
		c.Hub.Close()
	}
	if c.Messages != nil {
		c.Messages.Close()
	}
	if c.Provisioning != nil {
		c.Provisioning.Close()
	}
}

// OpenAll finds the hub, and the provisioning service if the environment names one or the hub is that of this machine.
// The caller closes the clients.
func (o *Messaging) OpenAll(s output.Streams) (t Target, c Clients, err error) {
	if t, err = o.find(s); err != nil {
		return t, c, err
	}
	return o.openAll(s, t)
}

// OpenLocal is OpenAll for the hub of this machine, whatever the environment says.
func (o *Messaging) OpenLocal(s output.Streams) (t Target, c Clients, err error) {
	o.Hub.logRetries(s)
	if t, err = o.Hub.LocalHub(""); err != nil {
		return t, c, err
	}
	return o.openAll(s, t)
}

func (o *Messaging) openAll(s output.Streams, t Target) (_ Target, c Clients, err error) {
	defer func() {
		if err != nil {
			c.Close()
			c = Clients{}
		}
	}()
	if c.Hub, err = hubrest.New(hubrest.Options{ConnectionString: t.Connection, Credential: t.entra, Addr: t.HTTPSAddr, TLS: t.TLS, Logger: t.log, Now: t.Now}); err != nil {
		return t, c, err
	}
	if c.Messages, err = o.newClient(t, hubamqp.Options{ConnectionString: t.Connection, Credential: t.entra}); err != nil {
		return t, c, err
	}
	c.Provisioning, err = o.openProvisioning(s, t)
	return t, c, err
}

func (o *Messaging) openProvisioning(s output.Streams, t Target) (*hubrest.ProvisioningClient, error) {
	p := Provisioning{hub: Options{Data: o.Hub.Data, CAFile: o.Hub.CAFile, Log: o.Hub.Log}, name: os.Getenv("IOTDM_DPS_NAME")}
	_, given, err := p.hub.Given(s, ProvisioningVariables)
	switch given = given || p.name != ""; {
	case err != nil, !given && !t.Local:
		return nil, err
	}
	_, client, err := p.Open(s)
	if err != nil && !given { // an older hub of this machine, which has no such policy
		return nil, nil
	}
	return client, err
}
