package dps

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// pageSize is the largest page, and the one of who does not ask for a smaller one. The
// service's own is not public.
const pageSize = 1000

// itemTypes are what a query's answer says of its items. The service's client for .NET
// wants one that it knows.
var itemTypes = map[provisioning.Kind]string{provisioning.Individual: "enrollment", provisioning.Group: "enrollmentGroup"}

func (d *Door) getEnrollment(r *request) (reply, error) {
	e, err := d.service.Enrollment(r.route.kind, r.id)
	return enrollmentReply(e, err)
}

// putEnrollment creates an enrollment, or replaces it. The id may be left out of the
// body, and must not be another there: ids are compared without regard to case.
func (d *Door) putEnrollment(r *request) (reply, error) {
	var e provisioning.Enrollment
	if err := r.decode(maxBody, &e); err != nil {
		return reply{}, err
	}
	id, other, name := &e.RegistrationID, &e.GroupID, "registrationId"
	if r.route.kind == provisioning.Group {
		id, other, name = other, id, "enrollmentGroupId"
	}
	if *id == "" {
		*id = r.id
	}
	if !strings.EqualFold(*id, r.id) || *other != "" {
		return reply{}, provisioning.ErrBadRequest.With("%s in the body is not that of the path", name)
	}
	e, err := d.service.PutEnrollment(e, r.ifMatch())
	return enrollmentReply(e, err)
}

func enrollmentReply(e provisioning.Enrollment, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{body: e, header: http.Header{"Etag": {e.ETag}}}, nil
}

func (d *Door) deleteEnrollment(r *request) (reply, error) {
	return reply{}, d.service.DeleteEnrollment(r.route.kind, r.id, r.ifMatch())
}

func (d *Door) attestationMechanism(r *request) (reply, error) {
	a, err := d.service.AttestationMechanism(r.route.kind, r.id)
	return reply{body: a}, err
}

func (d *Door) queryEnrollments(r *request) (reply, error) {
	var in struct {
		Query string `json:"query"`
	}
	if err := r.decode(maxBody, &in); err != nil {
		return reply{}, err
	}
	after, limit, err := r.page()
	if err != nil {
		return reply{}, err
	}
	list, next, err := d.service.Enrollments(r.route.kind, in.Query, after, limit)
	return pageReply(list, next, itemTypes[r.route.kind], err)
}

func (d *Door) bulk(r *request) (reply, error) {
	var in struct {
		Mode        provisioning.BulkMode         `json:"mode"`
		Enrollments few[*provisioning.Enrollment] `json:"enrollments"`
		Groups      few[*provisioning.Enrollment] `json:"enrollmentGroups"`
	}
	if err := r.decode(maxBulk, &in); err != nil {
		return reply{}, err
	}
	given, other := in.Enrollments, in.Groups
	if r.route.kind == provisioning.Group {
		given, other = other, given
	}
	if other != nil {
		return reply{}, provisioning.ErrBadRequest.With("the enrollments in the body are not those of the path")
	}
	list := make([]provisioning.Enrollment, 0, len(given))
	for _, e := range given {
		if e == nil {
			return reply{}, provisioning.ErrBadRequest.With("an enrollment in the body is null")
		}
		list = append(list, *e)
	}
	result, err := d.service.Bulk(r.route.kind, in.Mode, list)
	if result.Errors == nil {
		result.Errors = []provisioning.BulkError{} // clients go through the list
	}
	return reply{body: result}, err
}

// ifMatch returns the condition of the request. Etags have their quotes in bodies, and
// so clients send them as they are, without quotes, or with twice as many.
func (r *request) ifMatch() hub.Match {
	tag := strings.Trim(strings.TrimPrefix(strings.TrimSpace(r.Header.Get("If-Match")), "W/"), `"`)
	switch tag {
	case "":
		return hub.Match{}
	case "*":
		return hub.Match{Any: true}
	default:
		return hub.Match{ETag: `"` + tag + `"`}
	}
}

// page returns what the page of a query begins behind, and how many items it may have.
func (r *request) page() (after string, limit int, err error) {
	limit = pageSize
	if text := r.Header.Get("x-ms-max-item-count"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return "", 0, provisioning.ErrBadRequest.With("x-ms-max-item-count must be a number from 1")
		}
		limit = min(n, limit)
	}
	behind, err := base64.RawURLEncoding.DecodeString(r.Header.Get("x-ms-continuation"))
	if err != nil {
		return "", 0, provisioning.ErrBadRequest.With("x-ms-continuation is not one that a query has answered")
	}
	return string(behind), limit, nil
}

// pageReply is a page of a query. The header x-ms-continuation asks for another page,
// whatever its value, so that the last page must not have it.
func pageReply[T any](list []T, next, itemType string, err error) (reply, error) {
	if list == nil {
		list = []T{}
	}
	header := http.Header{"X-Ms-Item-Type": {itemType}}
	if next != "" {
		header["X-Ms-Continuation"] = []string{base64.RawURLEncoding.EncodeToString([]byte(next))}
	}
	return reply{body: list, header: header}, err
}
