package provisioning_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/provisioning"
)

func TestParseRequest(t *testing.T) {
	for body, want := range map[string]string{
		``: "", ` `: "", "\n": "", `{}`: "", `{"registrationId":"DEV-1"}`: "", `{"registrationId":null,"payload":null,"tpm":null}`: "",
		`{"registrationId":"dev-1","payload":{"a":[1]},"more":1}`: `{"a":[1]}`, `{"payload":"x"}`: `"x"`,
	} {
		r, err := provisioning.ParseRequest("dev-1", []byte(body))
		if err != nil || string(r.Payload) != want {
			t.Errorf("%q: %s, %v, want %s", body, r.Payload, err, want)
		}
	}
	for body, want := range map[string]int{
		`{`: 400, `[]`: 400, `"x"`: 400, `{"registrationId":1}`: 400, `{"registrationId":"dev-2"}`: 400, `{} {}`: 400,
		`{"registrationId":"dev-1","tpm":{"endorsementKey":"x"}}`:         401,
		`{"payload":"` + strings.Repeat("x", provisioning.MaxBody) + `"}`: 413,
	} {
		if _, err := provisioning.ParseRequest("dev-1", []byte(body)); code(err) != want {
			t.Errorf("%.60q: %v, want %d", body, err, want)
		}
	}
}

// What is taken is JSON that is no longer than the body, and what is refused says so
// in one line of an envelope that can be read.
func FuzzParseRequest(f *testing.F) {
	for _, body := range []string{"", "{}", `{"registrationId":"dev-1","payload":{"a":1}}`, `{"tpm":{}}`, `{"registrationId":"\u0000"}`, "[[["} {
		f.Add("dev-1", []byte(body))
	}
	f.Fuzz(func(t *testing.T, id string, body []byte) {
		r, err := provisioning.ParseRequest(id, body)
		var refused *provisioning.Error
		switch {
		case err == nil && len(r.Payload) > 0 && (!json.Valid(r.Payload) || len(r.Payload) > len(body)):
			t.Errorf("payload %q of %q", r.Payload, body)
		case err != nil && !errors.As(err, &refused):
			t.Errorf("%q: %v", body, err)
		case err != nil:
			var envelope struct {
				Code    int    `json:"errorCode"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal(refused.Envelope("t", provisioning.Registration{}.Created), &envelope); err != nil || envelope.Code != refused.Code {
				t.Errorf("envelope of %v: %v", refused, err)
			}
			if strings.ContainsAny(envelope.Message, "\r\n") {
				t.Errorf("message %q has lines", envelope.Message)
			}
		}
	})
}

// Times have at most seven digits behind the second, as in all that the service's
// clients read.
func TestEnvelope(t *testing.T) {
	at := time.Date(2026, 11, 29, 13, 30, 30, 778485775, time.FixedZone("", 3600))
	got := string(provisioning.ErrRegistrationNotFound.Because("secret").Envelope("t-1", at))
	want := `{"errorCode":404201,"trackingId":"t-1","message":"Registration not found","timestampUtc":"2026-11-29T12:30:30.7784857Z"}`
	if got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
