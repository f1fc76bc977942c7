package console

import (
	"errors"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
)

// deviceForm is what was typed of a new device.
type deviceForm struct {
	ID, By, Primary, Secondary string
	Edge, Disabled             bool
	Problem                    string
}

func (c *Console) newDevice(w http.ResponseWriter, r *http.Request) error {
	return c.showNewDevice(w, r, deviceForm{}, nil)
}

func (c *Console) showNewDevice(w http.ResponseWriter, r *http.Request, form deviceForm, wrong error) error {
	status := 0
	if wrong != nil {
		status, form.Problem = max(statusOf(wrong), http.StatusBadRequest), c.explain(r.Context(), wrong)
	}
	c.render(w, r, page{Template: "device_new", Title: "New device", Section: "Devices", Status: status, Data: form})
	return nil
}

// createDevice registers a device. The hub makes its keys.
func (c *Console) createDevice(w http.ResponseWriter, r *http.Request) error {
	value := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	form := deviceForm{ID: value("id"), By: value("by"), Primary: value("primary"), Secondary: value("secondary"), Edge: value("edge") != "", Disabled: value("disabled") != ""}
	d := hubrest.Device{DeviceID: form.ID, Capabilities: hubrest.Capabilities{IoTEdge: form.Edge}}
	if form.Disabled {
		d.Status = hubrest.Disabled
	}
	switch form.By {
	case "", string(hubrest.AuthSAS):
	case string(hubrest.AuthSelfSigned):
		d.Authentication = hubrest.Authentication{Type: hubrest.AuthSelfSigned, X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: form.Primary, SecondaryThumbprint: form.Secondary}}
	case string(hubrest.AuthCertificateAuthority):
		d.Authentication.Type = hubrest.AuthCertificateAuthority
	default:
		return c.showNewDevice(w, r, form, invalid("how does the device prove what it is? choose keys or a certificate"))
	}
	if form.ID == "" {
		return c.showNewDevice(w, r, form, invalid("give the device an id"))
	}
	_, err := c.opt.Client.CreateDevice(r.Context(), d)
	if errors.Is(err, hubrest.ErrAlreadyExists) {
		err = &problem{status: http.StatusConflict, text: "device " + form.ID + " exists already"}
	}
	if err != nil {
		return c.showNewDevice(w, r, form, err)
	}
	return c.done(w, r, devicePath(form.ID), "Device "+form.ID+" is registered.")
}
