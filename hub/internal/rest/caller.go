package rest

import (
	"crypto/x509"
	"errors"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// authenticateCaller checks the credential of a request for the decoded path.
func (d *Door) authenticateCaller(r *http.Request, path string) (hub.Caller, error) {
	credential, err := credentialOf(r)
	if err != nil {
		return hub.Caller{}, err
	}
	return d.hub.AuthenticateCaller(r.Context(), credential, r.Host, path)
}

// authenticateDevice checks that the caller is the device or module id: by a
// token, or by its certificate.
func (d *Door) authenticateDevice(r *http.Request, id hub.ID) (hub.Peer, error) {
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
	g, err := d.hub.Authenticate(hostOf(token, r.Host), id, token, chain)
	if err != nil && !errors.Is(err, hub.ErrUnauthorizedAccess) {
		// Nobody learns this way whether a device exists.
		err = hub.ErrUnauthorizedAccess.With("%v", err)
	}
	if err != nil {
		return hub.Peer{}, err
	}
	return hub.Peer{ID: id, Grant: g}, nil
}

// hostOf returns the host that a token is for. It need not be the one that
// was dialled: a device behind a gateway dials the gateway.
func hostOf(token, dialled string) string {
	t, err := sas.ParseToken(token)
	if err != nil {
		return dialled
	}
	host, _, _ := strings.Cut(unescapePath(t.Resource), "/")
	return host
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
	operation := words.Clip(r.Method) + " on " + words.Clip(rawPath(r))
	for _, to := range routes {
		if err := c.May(to.need, operation); err != nil {
			return err
		}
	}
	return nil
}
