package dps

import (
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub/provisioning"
)

// What services ask for.

func (d *Door) getRegistration(r *request) (reply, error) {
	g, err := d.service.Registration(r.id)
	return registrationReply(g, err)
}

func (d *Door) deleteRegistration(r *request) (reply, error) {
	return reply{}, d.service.DeleteRegistration(r.id, r.ifMatch())
}

func (d *Door) queryRegistrations(r *request) (reply, error) {
	after, limit, err := r.page()
	if err != nil {
		return reply{}, err
	}
	list, next, err := d.service.Registrations(r.id, after, limit)
	return pageReply(list, next, "deviceRegistration", err)
}

func registrationReply(g provisioning.Registration, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{body: g, header: http.Header{"Etag": {g.ETag}}}, nil
}

// What devices ask for.

func (d *Door) register(r *request) (reply, error) {
	body, err := r.read(maxBody)
	if err != nil {
		return reply{}, err
	}
	in, err := provisioning.ParseRequest(r.id, body)
	if err != nil {
		return reply{}, err
	}
	in.Force = in.Force || strings.EqualFold(r.URL.Query().Get("forceRegistration"), "true")
	return operationReply(d.service.Register(r.Context(), r.peer, in))
}

// operation answers how far an operation is. Node sends "{}" with it.
func (d *Door) operation(r *request) (reply, error) {
	return operationReply(d.service.Operation(r.peer, r.routeMatch.operation))
}

func operationReply(o provisioning.Operation, err error) (reply, error) {
	rep := reply{status: o.HTTPStatus(), body: o}
	if o.RetryAfter > 0 {
		rep.header = http.Header{"Retry-After": {seconds(o.RetryAfter)}}
	}
	return rep, err
}

// lookUp answers what the service knows of the device. The body says who it is, as that
// of register does.
func (d *Door) lookUp(r *request) (reply, error) {
	body, err := r.read(maxBody)
	if err != nil {
		return reply{}, err
	}
	if _, err := provisioning.ParseRequest(r.id, body); err != nil {
		return reply{}, err
	}
	g, err := d.service.Lookup(r.peer)
	return registrationReply(g, err)
}
