package console

import (
	"context"
	"errors"
	"net/http"
	"unicode"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// A problem is an error that is for the user as it is.
type problem struct {
	status int
	text   string
}

func (p *problem) Error() string { return p.text }

// invalid is the answer to a form that makes no sense: what is wrong, and what to do.
func invalid(text string) error { return &problem{status: http.StatusBadRequest, text: text} }

var errNoPage = &problem{status: http.StatusNotFound, text: "there is no such page"}

// onTarget is an error of a call about an identity.
type onTarget struct {
	error
	on hubrest.Target
}

func (e onTarget) Unwrap() error { return e.error }

// about says which identity an error is about, for the words that the user reads. It returns nil for nil.
func about(id hubrest.Target, err error) error {
	if err == nil {
		return nil
	}
	return onTarget{err, id}
}

// explain words an error for the user: a sentence without a stop at the end, which begins in upper case.
func (c *Console) explain(ctx context.Context, err error) string {
	if p, ok := errors.AsType[*problem](err); ok {
		return sentence(p.text)
	}
	var on hubrest.Target
	if o, ok := errors.AsType[onTarget](err); ok {
		on, err = o.on, o.error
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return "That is too large"
	}
	return sentence(c.opt.Explain(ctx, err, on).Error())
}

func sentence(text string) string {
	first, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[n:]
}

// statusOf is the HTTP status of a page that tells of err.
func statusOf(err error) int {
	if p, ok := errors.AsType[*problem](err); ok {
		return p.status
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return http.StatusRequestEntityTooLarge
	}
	switch {
	case errors.Is(err, hubrest.ErrNotFound), errors.Is(err, hubamqp.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, hubrest.ErrUnauthorized), errors.Is(err, hubamqp.ErrUnauthorized):
		return http.StatusForbidden
	case errors.Is(err, hubrest.ErrPreconditionFailed), errors.Is(err, hubrest.ErrAlreadyExists):
		return http.StatusConflict
	case errors.Is(err, hubrest.ErrTimedOut):
		return http.StatusGatewayTimeout
	}
	if e, ok := errors.AsType[*hubrest.Error](err); ok && e.Status/100 == 4 {
		return http.StatusBadRequest
	}
	return http.StatusBadGateway
}

// ofQuery reports whether err is a hub's answer to a query or condition that it does not take, or ours.
func ofQuery(err error) bool {
	if p, ok := errors.AsType[*problem](err); ok {
		return p.status == http.StatusBadRequest
	}
	e, ok := errors.AsType[*hubrest.Error](err)
	return ok && (e.Status == http.StatusBadRequest || e.Status == http.StatusPreconditionFailed) // the second is for one that is too long
}

// fail shows the user what went wrong.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil { // nobody looks any more
		return
	}
	status := statusOf(err)
	c.render(w, r, page{Template: "problem", Title: problemTitle(status), Status: status, Data: c.explain(r.Context(), err)})
}

func problemTitle(status int) string {
	switch status {
	case http.StatusNotFound:
		return "Not found"
	case http.StatusForbidden:
		return "Not allowed"
	case http.StatusConflict:
		return "Changed meanwhile"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return "The hub does not answer"
	}
	return "That did not work"
}
