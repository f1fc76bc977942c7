package rest

import (
	"crypto/x509"
	"errors"
	"net/http"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/httprequest"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// authenticateCaller checks the credential of a request for the decoded path.
func (d *Door) authenticateCaller(r *http.Request, path string) (hub.Caller, error) {
	return d.authenticateCallerAt(d.hub.Now(), r, path)
}

// authenticateCallerAt is authenticateCaller for a token that counts at another
// time than the hub's.
func (d *Door) authenticateCallerAt(at time.Time, r *http.Request, path string) (hub.Caller, error) {
	credential, err := credentialOf(r)
	if err != nil {
		return hub.Caller{}, err
	}
	caller, err := d.hub.AuthenticateCallerAt(r.Context(), at, credential, r.Host, path)
	if err != nil {
		d.refused(r, hub.ID{}, err)
	}
	return caller, err
}

// refused tells the rules of a credential that was not accepted: of a device's or
// module's, or of a service if id is zero.
func (d *Door) refused(r *http.Request, id hub.ID, err error) {
	if errors.Is(err, hub.ErrUnauthorizedAccess) {
		d.hub.Refused(hub.Peer{ID: id, Door: d.metrics.connections.Door, Remote: r.RemoteAddr}, "unauthorized", err)
	}
}

// authenticateController is authenticateCaller for test controls, which take the
// name and the key of a policy by HTTP's basic authentication too: a test in any
// language can ask without making a token.
func (d *Door) authenticateController(r *http.Request, path string) (hub.Caller, error) {
	if policy, key, ok := r.BasicAuth(); ok && len(r.Header["Authorization"]) == 1 {
		return d.hub.AuthenticateKey(policy, sas.Key(key))
	}
	return d.authenticateCallerAt(d.hub.Clock().Unmoved(), r, path)
}

// byItself reports whether the credential of a request is one that only devices
// and modules have: a token without a policy, or none but a client certificate.
func byItself(r *http.Request) bool {
	header := r.Header["Authorization"]
	if len(header) == 0 {
		return r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	}
	t, err := sas.ParseToken(header[0])
	return err == nil && t.Policy == ""
}

// authenticateDevice checks that the caller is the device or module id.
func (d *Door) authenticateDevice(r *http.Request, id hub.ID) (hub.Peer, error) {
	return d.authenticatePeer(r, id, id, d.hub.Authenticate)
}

// authenticateOwner checks that the caller is the device whose module id is.
func (d *Door) authenticateOwner(r *http.Request, id hub.ID) (hub.Peer, error) {
	return d.authenticatePeer(r, hub.ID{Device: id.Device}, id, d.hub.AuthenticateOwner)
}

// authenticatePeer checks by a rule of the hub's that the caller is peer, by a
// token or by its certificate, and may ask for id.
func (d *Door) authenticatePeer(r *http.Request, peer, id hub.ID,
	check func(host string, id hub.ID, password string, chain []*x509.Certificate) (hub.Grant, error),
) (hub.Peer, error) {
	token := ""
	if len(r.Header["Authorization"]) > 0 {
		var err error
		if token, err = credentialOf(r); err != nil {
			return hub.Peer{}, err
		}
	}
	var chain []*x509.Certificate
	if r.TLS != nil {
		chain = r.TLS.PeerCertificates
	}
	g, err := check(hostOf(token, r.Host), id, token, chain)
	if err != nil && d.hub.Clustered() { // another node may have registered it just now
		if err := d.fresh(r); err != nil {
			return hub.Peer{}, err
		}
		g, err = check(hostOf(token, r.Host), id, token, chain)
	}
	if err != nil && !errors.Is(err, hub.ErrUnauthorizedAccess) {
		// Nobody learns this way whether a device exists.
		err = hub.ErrUnauthorizedAccess.With("%v", err)
	}
	if err != nil {
		d.refused(r, id, err)
		return hub.Peer{}, err
	}
	return hub.Peer{ID: peer, Grant: g}, nil
}

// hostOf returns the host that a token is for. It need not be the one that
// was dialled: a device behind a gateway dials the gateway.
func hostOf(token, dialled string) string {
	t, err := sas.ParseToken(token)
	if err != nil {
		return dialled
	}
	return t.Host()
}

func credentialOf(r *http.Request) (string, error) {
	header := r.Header["Authorization"]
	if len(header) != 1 {
		return "", hub.ErrUnauthorizedAccess.With("there is no Authorization header, or more than one")
	}
	return header[0], nil
}

// mayAll returns why the caller must not use all of the routes, if so.
func mayAll(c hub.Caller, r *http.Request, routes []*route) error {
	operation := words.Clip(r.Method) + " on " + words.Clip(httprequest.RawPath(r))
	for _, to := range routes {
		if err := c.May(to.need, operation); err != nil {
			return err
		}
	}
	return nil
}
