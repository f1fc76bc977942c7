package console

import (
	"cmp"
	"context"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// An identityPage is the first tab of a device or module.
type identityPage struct {
	deviceHead
	Identity   hubrest.Device
	Keys       bool   // it has keys that may be shown, renewed and used
	Known      bool   // the registry may be read; else Identity is what the twin tells
	Parent     string // the IoT Edge device that it is a child of
	Connection *hubrest.Connection
	Secrets    *secrets // what was asked for; nil: nothing
}

// Thumbprints are those of the certificates that the identity has.
func (p identityPage) Thumbprints() []string {
	var list []string
	for _, t := range []string{p.Identity.Authentication.X509Thumbprint.PrimaryThumbprint, p.Identity.Authentication.X509Thumbprint.SecondaryThumbprint} {
		if t != "" {
			list = append(list, t)
		}
	}
	return list
}

func (c *Console) identity(w http.ResponseWriter, r *http.Request) error {
	p, err := c.identityPage(r.Context(), targetOf(r))
	if err != nil {
		return err
	}
	c.renderIdentity(w, r, p)
	return nil
}

func (c *Console) renderIdentity(w http.ResponseWriter, r *http.Request, p identityPage) {
	p.Identity.Authentication.SymmetricKey = hubrest.SymmetricKey{} // no template can show what it does not get
	c.render(w, r, page{Template: "identity", Title: titleOf(p.On, ""), Section: "Devices", Data: p})
}

// identityPage asks the hub for all that the tab shows, keys included.
func (c *Console) identityPage(ctx context.Context, on hubrest.Target) (identityPage, error) {
	var p identityPage
	if c.may(ctx).RegistryRead {
		i, err := c.lookUp(ctx, on)
		if err != nil {
			return p, err
		}
		p = identityPage{deviceHead: headOf(on, i, ""), Identity: i, Known: true}
		p.Keys = i.Authentication.Type == hubrest.AuthSAS || i.Authentication.Type == ""
	} else {
		t, err := c.opt.Client.Twin(ctx, on)
		if err != nil {
			return p, about(on, err)
		}
		p = identityPage{deviceHead: headOfTwin(on, t, "")}
		p.Identity = hubrest.Device{
			Status: t.Status, StatusReason: t.StatusReason, StatusUpdatedTime: t.StatusUpdateTime, ConnectionState: t.ConnectionState,
			LastActivityTime: t.LastActivityTime, CloudToDeviceMessageCount: t.CloudToDeviceMessageCount, ETag: t.DeviceETag,
			Authentication: hubrest.Authentication{Type: t.AuthenticationType}, Capabilities: t.Capabilities,
		}
	}
	scope := p.Identity.DeviceScope
	if len(p.Identity.ParentScopes) > 0 {
		scope = p.Identity.ParentScopes[0]
	}
	if parent := hubrest.ScopeDevice(scope); parent != on.DeviceID {
		p.Parent = parent
	}
	if c.opt.Client.OwnHub() {
		if connection, err := c.opt.Client.Connection(ctx, on); err == nil {
			p.Connection = &connection
		}
	}
	return p, nil
}

// hostName is the hub in connection strings of devices.
func (c *Console) hostName() string { return cmp.Or(c.opt.HostName, c.opt.HubName) }

// connectionString is that of a device or module, with one of its keys.
func (c *Console) connectionString(on hubrest.Target, key sas.Key) sas.ConnectionString {
	return sas.ConnectionString{HostName: c.hostName(), DeviceID: on.DeviceID, ModuleID: on.ModuleID, SharedAccessKey: key}
}

// setStatus enables or disables a device.
func (c *Console) setStatus(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	status := hubrest.Status(r.PostFormValue("status"))
	if status != hubrest.Enabled && status != hubrest.Disabled {
		return invalid("a device is enabled or disabled")
	}
	reason := strings.TrimSpace(r.PostFormValue("reason"))
	if len(reason) > 128 {
		return c.failed(w, r, identityPath(on), invalid("the reason is longer than the 128 characters that a hub keeps; shorten it"))
	}
	i, err := c.opt.Client.Device(r.Context(), on.DeviceID)
	if err != nil {
		return about(on, err)
	}
	i.Status, i.StatusReason = status, reason
	if _, err := c.opt.Client.UpdateDevice(r.Context(), i); err != nil {
		return c.failed(w, r, identityPath(on), about(on, changedMeanwhile(err)))
	}
	return c.done(w, r, identityPath(on), "Device "+on.DeviceID+" is "+string(status)+".")
}

// deleteIdentity deletes a device or module, whose id has been typed, if it still is the one that the page showed.
func (c *Console) deleteIdentity(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	if err := confirmed(r, newHead(on, "").ID()); err != nil {
		return c.failed(w, r, identityPath(on), err)
	}
	etag := r.PostFormValue("etag")
	if etag == "" {
		return invalid("the form lacks the etag of what is to be deleted; open the page again")
	}
	if on.ModuleID != "" {
		if err := c.opt.Client.DeleteModule(r.Context(), on, etag); err != nil {
			return c.failed(w, r, identityPath(on), about(on, changedMeanwhile(err)))
		}
		return c.done(w, r, devicePath(on.DeviceID, "modules"), "Module "+on.ModuleID+" is deleted.")
	}
	if err := c.opt.Client.DeleteDevice(r.Context(), on.DeviceID, etag); err != nil {
		return c.failed(w, r, identityPath(on), about(on, changedMeanwhile(err)))
	}
	return c.done(w, r, "/devices", "Device "+on.DeviceID+" is deleted.")
}
