package hubamqp

import (
	"context"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"
)

func TestErrors(t *testing.T) {
	all := []error{ErrNotFound, ErrUnauthorized, ErrLimit, ErrTooLarge, ErrThrottled, ErrStolen, ErrConnectionLost, ErrNoAnswer, ErrClosed}
	tests := []struct {
		condition string
		status    int
		is        error // alone; nil: none
		final     bool
	}{
		{"amqp:not-found", 0, ErrNotFound, true},
		{"com.microsoft:iot-hub-not-found-error", 0, ErrNotFound, true},
		{"", 404, ErrNotFound, true},
		{"amqp:unauthorized-access", 0, ErrUnauthorized, true},
		{"com.microsoft:auth-failed", 0, ErrUnauthorized, true},
		{"", 401, ErrUnauthorized, true},
		{"", 403, ErrUnauthorized, true},
		{"amqp:resource-limit-exceeded", 0, ErrLimit, true},
		{"com.microsoft:quota-exceeded", 0, ErrLimit, true},
		{"amqp:link:message-size-exceeded", 0, ErrTooLarge, false},
		{"com.microsoft:device-container-throttled", 0, ErrThrottled, false},
		{"com.microsoft:server-busy", 0, ErrThrottled, false},
		{"", 503, ErrThrottled, false},
		{"", 429, ErrThrottled, false},
		{"amqp:link:stolen", 0, ErrStolen, true},
		{"com.microsoft:argument-out-of-range", 0, nil, true},
		{"com.microsoft:argument-error", 0, nil, true},
		{"amqp:not-allowed", 0, nil, true},
		{"amqp:not-implemented", 0, nil, true},
		{"", 400, nil, true},
		{"amqp:connection:forced", 0, nil, false},
		{"amqp:link:detach-forced", 0, nil, false},
		{"amqp:internal-error", 0, nil, false},
		{"com.microsoft:timeout", 0, nil, false},
		{"", 500, nil, false},
	}
	for _, tt := range tests {
		e := &Error{Condition: tt.condition, Status: tt.status}
		for _, target := range all {
			if got := errors.Is(e, target); got != (target == tt.is) {
				t.Errorf("errors.Is(%v, %v) is %v", e, target, got)
			}
		}
		if got := final(e); got != tt.final {
			t.Errorf("final(%v) is %v", e, got)
		}
	}
	if !final(ErrClosed) || final(ErrConnectionLost) || final(ErrNoAnswer) {
		t.Error("final is wrong about errors of the way")
	}
}

func TestWireError(t *testing.T) {
	ended, end := context.WithCancelCause(t.Context())
	because := errors.New("because")
	end(because)
	refusal := &amqp.Error{Condition: "amqp:not-found", Description: "no such\r\ndevice, Tracking Id:12ab-G:1-TimeStamp:11/29/2026"}
	want := &Error{Condition: "amqp:not-found", Message: "no such device", TrackingID: "12ab-G:1"}
	for name, err := range map[string]error{"alone": refusal, "of a link": &amqp.LinkError{RemoteErr: refusal}, "of a session": &amqp.SessionError{RemoteErr: refusal}, "of a connection": &amqp.ConnError{RemoteErr: refusal}} {
		var got *Error
		if !errors.As(wireError(t.Context(), err), &got) {
			t.Errorf("%s: no *Error", name)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, err := range map[string]error{"link": &amqp.LinkError{}, "session": &amqp.SessionError{}, "connection": &amqp.ConnError{}, "else": errors.New("read: connection reset by peer")} {
		if got := wireError(t.Context(), err); !errors.Is(got, ErrConnectionLost) {
			t.Errorf("%s: %v, want %v", name, got, ErrConnectionLost)
		}
	}
	if got := wireError(ended, refusal); got != because {
		t.Errorf("when the context has ended: %v, want its cause", got)
	}
	if got := wireError(ended, nil); got != nil {
		t.Errorf("no error: %v", got)
	}
	if got := wireError(t.Context(), &amqp.LinkError{RemoteErr: &amqp.Error{Condition: "x", Info: map[string]any{"com.microsoft:tracking-id": "7"}}}); got.(*Error).TrackingID != "7" {
		t.Errorf("the tracking id of the info is %+v", got)
	}
}

// What a hub says becomes one line.
func FuzzNewError(f *testing.F) {
	f.Add("amqp:not-found", "no such device Tracking Id:1-TimeStamp:2", "")
	f.Add("\n", "\x00\xff", strings.Repeat("x", 1000))
	f.Fuzz(func(t *testing.T, condition, description, tracking string) {
		e := newError(&amqp.Error{Condition: amqp.ErrCond(condition), Description: description, Info: map[string]any{"com.microsoft:tracking-id": tracking}})
		for _, s := range []string{e.Error(), e.Condition, e.Message, e.TrackingID} {
			if strings.ContainsFunc(s, unicode.IsControl) || len(s) > 3000 {
				t.Errorf("%q", s)
			}
		}
	})
}
