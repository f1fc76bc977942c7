package console

import (
	"errors"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
)

// registrationPage is the data of the page of a registration.
type registrationPage struct {
	hubrest.Registration
	Payload string
	Here    bool // the device is on this hub
}

// findRegistration goes to the registration of an id.
func (c *Console) findRegistration(w http.ResponseWriter, r *http.Request) error {
	id := strings.TrimSpace(r.URL.Query().Get("id"))
	if id == "" {
		return invalid("which registration? give its id")
	}
	http.Redirect(w, r, registrationPath(id), http.StatusSeeOther)
	return nil
}

func (c *Console) registration(w http.ResponseWriter, r *http.Request) error {
	id := pathID(r, "id")
	got, err := c.opt.Provisioning.Registration(r.Context(), id)
	if err != nil {
		return registrationError(id, err)
	}
	p := registrationPage{Registration: got, Here: got.DeviceID != "" && c.isHub(got.AssignedHub)}
	if len(got.Payload) > 0 {
		p.Payload = indented(got.Payload)
	}
	c.render(w, r, page{Template: "registration", Title: "Registration " + id, Section: "Enrollments", Data: p})
	return nil
}

// isHub reports whether the console is one of the hub with that host name, whatever the port.
func (c *Console) isHub(host string) bool {
	name, _, _ := strings.Cut(c.opt.HubName, ":")
	other, _, _ := strings.Cut(host, ":")
	return strings.EqualFold(name, other)
}

func (c *Console) deleteRegistration(w http.ResponseWriter, r *http.Request) error {
	id := pathID(r, "id")
	err := confirmed(r, id)
	if err == nil {
		err = c.opt.Provisioning.DeleteRegistration(r.Context(), id, r.PostFormValue("etag"))
	}
	if err != nil {
		return c.failed(w, r, registrationPath(id), registrationError(id, err))
	}
	return c.done(w, r, "/enrollments", "Registration "+id+" is forgotten. The next time that the device registers is its first; its identity stays.")
}

// registrationError words what a service says of a registration.
func registrationError(id string, err error) error {
	switch status := statusOf(err); {
	case errors.Is(err, hubrest.ErrNotFound):
		return &problem{status: status, text: "no device has registered as " + id}
	case errors.Is(err, hubrest.ErrPreconditionFailed):
		return &problem{status: status, text: "registration " + id + " has changed in the meantime; look at it and try again"}
	}
	return err
}
