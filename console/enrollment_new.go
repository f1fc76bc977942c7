package console

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
)

// enrollmentForm is what was typed of a new enrollment.
type enrollmentForm struct {
	Kind, Noun                string
	Group                     bool
	ID, DeviceID, Certificate string
	By, Again                 string
	Tags, Desired             string
	Edge                      bool
	Problem                   string
}

func readEnrollmentForm(r *http.Request) (enrollmentForm, hubrest.EnrollmentKind, error) {
	kind, err := kindOf(r.FormValue("kind"))
	value := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	return enrollmentForm{
		Kind: kindName(kind), Noun: kindNoun(kind), Group: kind == hubrest.Group, ID: value("id"), DeviceID: value("device"), Certificate: value("certificate"),
		By: value("by"), Again: value("again"), Tags: value("tags"), Desired: value("desired"), Edge: value("edge") != "",
	}, kind, err
}

func (c *Console) newEnrollment(w http.ResponseWriter, r *http.Request) error {
	form, _, err := readEnrollmentForm(r)
	if err != nil {
		return err
	}
	return c.showNewEnrollment(w, r, form, nil)
}

func (c *Console) showNewEnrollment(w http.ResponseWriter, r *http.Request, form enrollmentForm, wrong error) error {
	status := 0
	if wrong != nil {
		status, form.Problem = max(statusOf(wrong), http.StatusBadRequest), c.explain(r.Context(), wrong)
	}
	c.render(w, r, page{Template: "enrollment_new", Title: "New " + form.Noun, Section: "Enrollments", Status: status, Data: form})
	return nil
}

func (c *Console) createEnrollment(w http.ResponseWriter, r *http.Request) error {
	form, kind, err := readEnrollmentForm(r)
	if err != nil {
		return err
	}
	e, err := form.enrollment(kind)
	if err == nil {
		_, err = c.opt.Provisioning.CreateEnrollment(r.Context(), e)
		err = enrollmentError(kind, form.ID, err)
	}
	if err != nil {
		return c.showNewEnrollment(w, r, form, err)
	}
	return c.done(w, r, enrollmentPath(kind, form.ID), "The "+form.Noun+" is created.")
}

// enrollment is the enrollment that the form describes.
func (f enrollmentForm) enrollment(kind hubrest.EnrollmentKind) (e hubrest.Enrollment, err error) {
	if f.ID == "" {
		return e, invalid("give the " + f.Noun + " an id")
	}
	e.ProvisioningStatus, e.Capabilities.IoTEdge = hubrest.Enabled, f.Edge
	if kind == hubrest.Group {
		e.GroupID = f.ID
	} else {
		e.RegistrationID, e.DeviceID = f.ID, f.DeviceID
	}
	switch f.By {
	case "", "keys":
		e.Attestation = hubrest.Attestation{Type: hubrest.BySymmetricKey, SymmetricKey: &hubrest.SymmetricKey{}}
	case "x509":
		if f.Certificate == "" {
			return e, invalid("give the certificate, as PEM")
		}
		one := &hubrest.X509Certificates{Primary: &hubrest.X509Certificate{Certificate: f.Certificate}}
		e.Attestation = hubrest.Attestation{Type: hubrest.ByX509, X509: &hubrest.X509Attestation{ClientCertificates: one}}
		if kind == hubrest.Group {
			e.Attestation.X509 = &hubrest.X509Attestation{SigningCertificates: one}
		}
	default:
		return e, invalid("how do devices prove what they are? choose keys or a certificate")
	}
	switch f.Again {
	case "", "migrate":
		e.ReprovisionPolicy = &hubrest.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}
	case "reset":
		e.ReprovisionPolicy = &hubrest.ReprovisionPolicy{UpdateHubAssignment: true}
	case "never":
		e.ReprovisionPolicy = &hubrest.ReprovisionPolicy{}
	default:
		return e, invalid("what does a device get that registers again? choose one")
	}
	for _, section := range []struct {
		name, text string
		to         func(*hubrest.InitialTwin) *json.RawMessage
	}{
		{"the tags", f.Tags, func(t *hubrest.InitialTwin) *json.RawMessage { return &t.Tags }},
		{"the desired properties", f.Desired, func(t *hubrest.InitialTwin) *json.RawMessage { return &t.Properties.Desired }},
	} {
		if section.text == "" {
			continue
		}
		if err := checkJSON(section.text); err != nil {
			return e, invalid(section.name + " are not JSON: " + err.Error())
		}
		if section.text[0] != '{' {
			return e, invalid(section.name + " are not a JSON object")
		}
		if e.InitialTwin == nil {
			e.InitialTwin = &hubrest.InitialTwin{}
		}
		*section.to(e.InitialTwin) = json.RawMessage(section.text)
	}
	return e, nil
}
