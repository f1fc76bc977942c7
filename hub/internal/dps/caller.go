package dps

import (
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// door is what the log and the rules call the way in.
const door = "https"

// admitService checks the credential and the rights of a service.
func (x *exchange) admitService(m routeMatch, segments []string) error {
	header := x.r.Header["Authorization"]
	if len(header) != 1 {
		return provisioning.ErrUnauthorized.Because("there is no Authorization header, or more than one")
	}
	c, err := x.door.hub.AuthenticateCaller(x.r.Context(), header[0], x.r.Host, "/"+strings.Join(segments, "/"))
	if err != nil {
		if errors.Is(err, hub.ErrUnauthorizedAccess) {
			x.door.hub.Refused(hub.Peer{Door: door, Remote: x.r.RemoteAddr}, "unauthorized", err)
		}
		return unauthorized(err)
	}
	x.admitted()
	x.who = c.Name
	operation := words.Clip(x.r.Method) + " on " + words.Clip(httprequest.RawPath(x.r))
	for _, to := range m.allowed {
		if err := c.May(to.need, operation); err != nil {
			return unauthorized(err)
		}
	}
	return nil
}

// unauthorized is a refusal of the hub's as the provisioning service words it. Why is
// for the hub's operator alone.
func unauthorized(err error) error {
	if errors.Is(err, hub.ErrUnauthorizedAccess) || errors.Is(err, hub.ErrPrincipalUnauthorized) {
		return provisioning.ErrUnauthorized.Because("%v", err)
	}
	return err
}

// admitDevice checks the credential of a device before its body is read. The service
// checks it again in what the device asks for.
func (x *exchange) admitDevice(r *request) error {
	r.peer = provisioning.Peer{Scope: r.scope, ID: r.registration, Host: hostOf(x.r), Door: door, Remote: x.r.RemoteAddr}
	var err error
	switch header := x.r.Header["Authorization"]; len(header) {
	case 0:
		r.peer.Chain = chainOf(x.r)
		_, err = x.door.service.Authenticate(r.peer)
	case 1:
		r.peer.Password = header[0]
		_, err = x.door.service.Authenticate(r.peer)
	default:
		err = provisioning.ErrUnauthorized.Because("there is more than one Authorization header")
	}
	if err != nil {
		if errors.Is(err, provisioning.ErrUnauthorized) || errors.Is(err, provisioning.ErrRegistrationNotFound) {
			x.door.hub.Refused(hub.Peer{ID: x.about, Door: door, Remote: x.r.RemoteAddr}, "unauthorized", err)
		}
		return err
	}
	x.admitted()
	x.who = r.registration
	return nil
}

func chainOf(r *http.Request) []*x509.Certificate {
	if r.TLS == nil {
		return nil
	}
	return r.TLS.PeerCertificates
}

// hostOf returns the name under which a device has reached the hub.
func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return strings.Trim(r.Host, "[]")
}
