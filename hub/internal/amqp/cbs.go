package amqp

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

const (
	// cbsCredit is how many tokens a peer may have under way.
	cbsCredit = 100

	// maxClaimMessage bounds a request with a token.
	maxClaimMessage = 2 * maxToken
)

// attachCBS attaches a link to $cbs: the one on which the peer puts tokens, or
// the one on which it is answered.
func (c *conn) attachCBS(l *engine.Link) error {
	if l.Role == wire.Receiver {
		c.cbs.attach(l)
		return nil
	}
	l.Inlet = cbs{c}
	l.Credit = cbsCredit
	l.MaxMessageSize = maxClaimMessage
	return nil
}

// cbs takes the tokens of a connection.
type cbs struct{ conn *conn }

// Detached implements engine.Inlet.
func (cbs) Detached() {}

// Receive implements engine.Inlet. The request is settled before it is answered:
// uamqp takes the other order for a failure.
func (s cbs) Receive(d *engine.Delivery) {
	request, err := wire.DecodeMessage(d.Payload)
	if err != nil {
		d.Reject(refuse(condDecode, "%v", err))
		return
	}
	var properties wire.Properties
	if request.Properties != nil {
		properties = *request.Properties
	}
	status, description := s.conn.putToken(request)
	d.Accept()
	s.conn.cbs.send(d.Link, properties.ReplyTo, wire.AppendMessage(nil, &wire.Message{
		// In the type in which it came: clients compare.
		Properties:            &wire.Properties{CorrelationID: properties.MessageID},
		ApplicationProperties: wire.Map{{Key: "status-code", Value: int32(status)}, {Key: "status-description", Value: description}},
		HasValue:              true,
	}))
}

// putToken takes the token of a request, and returns how that is answered: by
// nothing but 200 if all is well, since some clients know no other status.
func (c *conn) putToken(request *wire.Message) (status int, description string) {
	token, refused := parsePutToken(request)
	if refused != "" {
		c.door.far.Info("token refused", slog.String(words.LogRemote, c.remote()), slog.String(words.LogReason, refused))
		return http.StatusBadRequest, refused
	}
	cl, err := c.newClaim(token)
	if err == nil {
		err = c.claim(cl)
	}
	var full *wire.Error
	switch {
	case err == nil:
		return http.StatusOK, "OK"
	case errors.Is(err, errUnknownResource):
		status, description = http.StatusNotFound, err.Error()
	case errors.As(err, &full):
		status, description = http.StatusForbidden, full.Description
	default:
		refusal := hub.RefusalOf(err)
		if refusal.Code == hub.ErrUnauthorizedAccess.Code {
			refusal = hub.ErrUnauthorizedAccess // why is for the hub's operator alone
		}
		status, description = refusal.Status, refusal.Error()
	}
	c.refused(claimedBy(token), err)
	id := words.NewRequestID()
	c.door.far.Info("token refused", slog.String(words.LogRemote, c.remote()), slog.Int(words.LogStatus, status),
		slog.String(words.LogTracking, id.Compact()), slog.String(words.LogReason, err.Error()))
	return status, description + " Tracking Id:" + id.TrackingID(c.door.hub.Now())
}

// parsePutToken reads a request, and says what is wrong with it if something is.
// What the token is for is looked up in the token: clients write the name of it,
// its audience, in many ways. Types are "servicebus.windows.net:sastoken", and
// for a token of Entra ID "bearer", whose value begins so too, or "jwt".
func parsePutToken(request *wire.Message) (token, refused string) {
	text := func(name string) string {
		s, _ := request.ApplicationProperties.Get(name).(string)
		return s
	}
	operation, kind := text("operation"), text("type")
	if !strings.EqualFold(operation, "put-token") {
		return "", "the operation of $cbs is put-token"
	}
	token, ok := request.Value.(string)
	if !ok || token == "" {
		return "", "the body of put-token must be a text, the token"
	}
	switch strings.ToLower(kind) {
	case "servicebus.windows.net:sastoken":
		if !strings.HasPrefix(token, "SharedAccessSignature ") {
			return "", "a token of type servicebus.windows.net:sastoken begins with SharedAccessSignature"
		}
		return token, ""
	case "bearer", "jwt":
		if bare, ok := cutPrefixFold(token, "Bearer "); ok {
			token = bare
		}
		return "Bearer " + token, ""
	}
	return "", "the type of a token is servicebus.windows.net:sastoken, bearer or jwt"
}
