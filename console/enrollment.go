package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/sas"
)

var errNoProvisioning = &problem{status: http.StatusNotFound,
	text: "this console has no provisioning service: it knows that of a local hub, or the one that PROVISIONING_CONNECTION_STRING names"}

// The kinds of enrollments in addresses.
const (
	kindGroup      = "group"
	kindIndividual = "individual"
)

// kindOf is the kind that an address names.
func kindOf(name string) (hubrest.EnrollmentKind, error) {
	switch name {
	case "", kindGroup:
		return hubrest.Group, nil
	case kindIndividual:
		return hubrest.Individual, nil
	}
	return "", invalid(fmt.Sprintf("%q is no kind of enrollment", phrase.Clip(name)))
}

// kindName is the kind in addresses.
func kindName(kind hubrest.EnrollmentKind) string {
	return phrase.Choose(kind == hubrest.Group, kindGroup, kindIndividual)
}

// kindNoun is the kind for people.
func kindNoun(kind hubrest.EnrollmentKind) string {
	return phrase.Choose(kind == hubrest.Group, "enrollment group", "enrollment")
}

func enrollmentPath(kind hubrest.EnrollmentKind, id string) string {
	return "/enrollment/" + kindName(kind) + "/" + idPath(id)
}

func registrationPath(id string) string { return "/registration/" + idPath(id) }

// needsProvisioning is h where there is a provisioning service.
func (c *Console) needsProvisioning(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if c.opt.Provisioning == nil {
			return errNoProvisioning
		}
		return h(w, r)
	}
}

func (c *Console) enrollmentRoutes() []route {
	routes := []route{
		get("/enrollments", c.enrollments),
		get("/enrollments/new", c.newEnrollment),
		post("/enrollments", enroll, c.createEnrollment),
		get("/enrollment/{kind}/{id}", c.enrollment),
		post("/enrollment/{kind}/{id}", enroll, c.updateEnrollment),
		post("/enrollment/{kind}/{id}/keys", enroll, c.enrollmentKeys),
		post("/enrollment/{kind}/{id}/delete", enroll, c.deleteEnrollment),
		get("/registrations", c.findRegistration),
		get("/registration/{id}", c.registration),
		post("/registration/{id}/delete", enroll, c.deleteRegistration),
	}
	for i := range routes {
		routes[i].handle = c.needsProvisioning(routes[i].handle)
	}
	return routes
}

// enrollmentsPage is the data of the list of enrollments.
type enrollmentsPage struct {
	Kind, Of string // in addresses
	Group    bool
	Rows     []enrollmentRow
	Pager    pager
}

// An enrollmentRow is an enrollment in the list.
type enrollmentRow struct {
	hubrest.Enrollment
	Path string
	By   string // how devices prove what they are
	Gets string // what a device gets that registers again
}

func newEnrollmentRow(e hubrest.Enrollment) enrollmentRow {
	row := enrollmentRow{Enrollment: e, Path: enrollmentPath(e.Kind(), e.ID()), By: string(e.Attestation.Type), Gets: "its hub may change, its twin stays"}
	switch e.Attestation.Type {
	case hubrest.BySymmetricKey:
		row.By = "symmetric keys"
	case hubrest.ByX509:
		row.By = "X.509"
	}
	switch p := e.ReprovisionPolicy; {
	case p == nil:
	case !p.UpdateHubAssignment:
		row.Gets = "its hub and twin stay"
	case !p.MigrateDeviceData:
		row.Gets = "its hub may change, its twin begins anew"
	}
	return row
}

func (c *Console) enrollments(w http.ResponseWriter, r *http.Request) error {
	v := r.URL.Query()
	kind, err := kindOf(v.Get("kind"))
	if err != nil {
		return err
	}
	got, err := c.opt.Provisioning.EnrollmentPage(r.Context(), kind, hubrest.PageRequest{Size: pageSize(v), From: v.Get("from")})
	if err != nil {
		return err
	}
	p := enrollmentsPage{Kind: kindName(kind), Of: phrase.Choose(kind == hubrest.Group, ofGroups, ofEnrollments), Group: kind == hubrest.Group, Pager: newPager("/enrollments", v, got.Next)}
	for _, e := range got.Rows {
		p.Rows = append(p.Rows, newEnrollmentRow(e))
	}
	c.render(w, r, page{Template: "enrollments", Title: "Enrollments", Section: "Enrollments", Data: p})
	return nil
}

// enrollmentPage is the data of the page of an enrollment.
type enrollmentPage struct {
	enrollmentRow
	Kind, Noun    string
	Group         bool
	Text          string // what can be changed of it, as JSON
	Certificates  []certificateRow
	Registrations []hubrest.Registration
	Pager         pager
	Problem       string

	// Keys were asked for. Derived is that of the device with the registration id For, if one was named.
	Keys    *hubrest.SymmetricKey
	Derived sas.Key
	For     string
}

// Reveal are the keys that were asked for, as text: a sas.Key prints as stars.
func (p enrollmentPage) Reveal() map[string]string {
	if p.Keys == nil {
		return nil
	}
	if p.For != "" {
		return map[string]string{"Key of " + p.For: string(p.Derived)}
	}
	return map[string]string{"Primary key": string(p.Keys.PrimaryKey), "Secondary key": string(p.Keys.SecondaryKey)}
}

// A certificateRow is a certificate of an enrollment.
type certificateRow struct {
	Name string
	hubrest.X509CertificateInfo
}

func certificatesOf(a hubrest.Attestation) []certificateRow {
	if a.X509 == nil {
		return nil
	}
	var rows []certificateRow
	for _, list := range []*hubrest.X509Certificates{a.X509.ClientCertificates, a.X509.SigningCertificates} {
		if list == nil {
			continue
		}
		for name, one := range map[string]*hubrest.X509Certificate{"primary": list.Primary, "secondary": list.Secondary} {
			if one != nil && one.Info != nil {
				rows = append(rows, certificateRow{name, *one.Info})
			}
		}
	}
	if len(rows) == 2 && rows[0].Name > rows[1].Name {
		rows[0], rows[1] = rows[1], rows[0]
	}
	return rows
}

// readEnrollment returns the enrollment that the address names.
func (c *Console) readEnrollment(r *http.Request) (hubrest.Enrollment, error) {
	kind, err := kindOf(r.PathValue("kind"))
	if err != nil {
		return hubrest.Enrollment{}, err
	}
	e, err := c.opt.Provisioning.Enrollment(r.Context(), kind, pathID(r, "id"))
	if err != nil {
		return e, enrollmentError(kind, pathID(r, "id"), err)
	}
	e.Attestation.SymmetricKey = nil // which some services give out
	return e, nil
}

func (c *Console) enrollment(w http.ResponseWriter, r *http.Request) error {
	e, err := c.readEnrollment(r)
	if err != nil {
		return err
	}
	return c.showEnrollment(w, r, e, func(*enrollmentPage) {}, nil)
}

// showEnrollment shows the page of e, with what fill adds, and what is wrong if something is.
func (c *Console) showEnrollment(w http.ResponseWriter, r *http.Request, e hubrest.Enrollment, fill func(*enrollmentPage), wrong error) error {
	v := r.URL.Query()
	p := enrollmentPage{enrollmentRow: newEnrollmentRow(e), Kind: kindName(e.Kind()), Noun: kindNoun(e.Kind()), Group: e.Kind() == hubrest.Group, Certificates: certificatesOf(e.Attestation)}
	var err error
	if p.Text, err = enrollmentText(e); err != nil {
		return err
	}
	if p.Group {
		got, err := c.opt.Provisioning.RegistrationPage(r.Context(), e.ID(), hubrest.PageRequest{Size: pageSize(v), From: v.Get("from")})
		if err != nil {
			return err
		}
		p.Registrations, p.Pager = got.Rows, newPager(p.Path, v, got.Next)
	} else if e.RegistrationState != nil {
		p.Registrations = []hubrest.Registration{*e.RegistrationState}
	}
	fill(&p)
	status := 0
	if wrong != nil {
		status, p.Problem = max(statusOf(wrong), http.StatusBadRequest), c.explain(r.Context(), wrong)
	}
	c.render(w, r, page{Template: "enrollment", Title: sentence(p.Noun) + " " + e.ID(), Section: "Enrollments", Status: status, Data: p})
	return nil
}

// enrollmentText is what can be changed of an enrollment, as JSON, without keys.
func enrollmentText(e hubrest.Enrollment) (string, error) {
	e.RegistrationID, e.GroupID, e.ETag, e.RegistrationState = "", "", "", nil
	e.Created, e.LastUpdated = hubrest.Time{}, hubrest.Time{}
	text, err := jsontext.Marshal(e)
	return indented(text), err
}

func (c *Console) updateEnrollment(w http.ResponseWriter, r *http.Request) error {
	now, err := c.readEnrollment(r)
	if err != nil {
		return err
	}
	text := r.PostFormValue("text")
	changed, err := parseEnrollment(text)
	if err == nil {
		changed.RegistrationID, changed.GroupID, changed.ETag = now.RegistrationID, now.GroupID, r.PostFormValue("etag")
		err = c.keepKeys(r, &changed)
	}
	if err == nil {
		if _, err = c.opt.Provisioning.UpdateEnrollment(r.Context(), changed); err == nil {
			return c.done(w, r, enrollmentPath(now.Kind(), now.ID()), "The enrollment is changed. Devices that have registered are as they were until they register again.")
		}
		err = enrollmentError(now.Kind(), now.ID(), err)
	}
	return c.showEnrollment(w, r, now, func(p *enrollmentPage) { p.Text = text }, err)
}

func parseEnrollment(text string) (e hubrest.Enrollment, err error) {
	if err := checkJSON(text); err != nil {
		return e, invalid(fmt.Sprintf("this is not JSON: %v", err))
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	err = dec.Decode(&e)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return e, invalid(fmt.Sprintf("%s must not be a JSON %s", wrong.Field, wrong.Value))
	}
	if err != nil {
		return e, invalid(strings.TrimPrefix(err.Error(), "json: "))
	}
	return e, nil
}

// keepKeys puts the keys of the enrollment that there is into a changed one without: a service may take keys that are
// left out for new ones to be made.
func (c *Console) keepKeys(r *http.Request, e *hubrest.Enrollment) error {
	if e.Attestation.Type != hubrest.BySymmetricKey || e.Attestation.SymmetricKey != nil {
		return nil
	}
	now, err := c.opt.Provisioning.AttestationMechanism(r.Context(), e.Kind(), e.ID())
	if err == nil && now.Type == hubrest.BySymmetricKey {
		e.Attestation.SymmetricKey = now.SymmetricKey
	}
	return err
}

// enrollmentKeys shows the keys of an enrollment, or the one that a device of a group has.
func (c *Console) enrollmentKeys(w http.ResponseWriter, r *http.Request) error {
	e, err := c.readEnrollment(r)
	if err != nil {
		return err
	}
	a, err := c.opt.Provisioning.AttestationMechanism(r.Context(), e.Kind(), e.ID())
	if err != nil {
		return enrollmentError(e.Kind(), e.ID(), err)
	}
	if a.SymmetricKey == nil {
		return c.failed(w, r, enrollmentPath(e.Kind(), e.ID()), invalid("this enrollment has no keys"))
	}
	registration := strings.TrimSpace(r.PostFormValue("registration"))
	var derived sas.Key
	if registration != "" && e.Kind() == hubrest.Group {
		if derived, err = sas.DeriveKey(a.SymmetricKey.PrimaryKey, registration); err != nil {
			return c.failed(w, r, enrollmentPath(e.Kind(), e.ID()), err)
		}
	}
	return c.showEnrollment(w, r, e, func(p *enrollmentPage) {
		p.Keys, p.Derived = a.SymmetricKey, derived
		if derived != "" {
			p.For = registration
		}
	}, nil)
}

func (c *Console) deleteEnrollment(w http.ResponseWriter, r *http.Request) error {
	kind, err := kindOf(r.PathValue("kind"))
	if err != nil {
		return err
	}
	id := pathID(r, "id")
	if err = confirmed(r, id); err == nil {
		err = c.opt.Provisioning.DeleteEnrollment(r.Context(), kind, id, r.PostFormValue("etag"))
	}
	if err != nil {
		return c.failed(w, r, enrollmentPath(kind, id), enrollmentError(kind, id, err))
	}
	return c.done(w, r, "/enrollments?"+url.Values{"kind": {kindName(kind)}}.Encode(), "The "+kindNoun(kind)+" "+id+" is deleted. Devices that have registered stay on their hubs.")
}

// enrollmentError words what a service says of an enrollment.
func enrollmentError(kind hubrest.EnrollmentKind, id string, err error) error {
	noun := kindNoun(kind) + " " + id
	switch status := statusOf(err); {
	case errors.Is(err, hubrest.ErrNotFound):
		return &problem{status: status, text: "there is no " + noun}
	case errors.Is(err, hubrest.ErrAlreadyExists):
		return &problem{status: status, text: noun + " exists already"}
	case errors.Is(err, hubrest.ErrPreconditionFailed):
		return &problem{status: status, text: noun + " was changed by somebody else in the meantime; look at it and try again"}
	}
	return err
}
