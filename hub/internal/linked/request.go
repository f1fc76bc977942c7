package linked

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

const (
	apiVersion = "2021-04-12"
	tokenLife  = 15 * time.Minute
	maxAnswer  = 1 << 20 // bytes; a device and its twin are far below
)

// A refusal is an answer that is no success.
type refusal struct {
	hub    string
	status int
	code   int    // six digits; 0 when the hub gives none
	text   string // in its own words, one line; may be empty
	policy string

	bulk  []bulkFailure
	after time.Duration // Retry-After
}

// bulkFailure is why a bulk operation has not changed a device. The documents show
// the code as a text, and hubs send a number.
type bulkFailure struct {
	Code   number `json:"errorCode"`
	Status string `json:"errorStatus"`
}

type number int

// UnmarshalJSON takes anything: a code that is none is 0.
func (n *number) UnmarshalJSON(text []byte) error {
	_, _ = fmt.Sscanf(strings.Trim(string(text), `"`), "%d", n)
	return nil
}

func (r *refusal) Error() string {
	switch r.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("hub %q: it does not take the key of policy %q, or the policy may not change devices and twins (%d)", r.hub, r.policy, r.status)
	}
	s := fmt.Sprintf("hub %q answers %d", r.hub, cmp.Or(r.code, r.status))
	if text := cmp.Or(r.text, http.StatusText(r.status)); text != "" {
		s += " " + text
	}
	return s
}

func (h *Hub) refused(status, code int, text string) *refusal {
	return &refusal{hub: h.name, policy: h.policy, status: status, code: code, text: oneLine(text)}
}

func hasStatus(err error, status int) bool {
	var r *refusal
	return errors.As(err, &r) && r.status == status
}

// tooSlow is why a context of ours has ended.
func (h *Hub) tooSlow() error {
	return fmt.Errorf("hub %q did not answer within %v", h.name, callTime)
}

// ask makes a request, again where nothing came of it: all that are made here may
// be repeated. The answer is read into v unless that is nil.
func (h *Hub) ask(ctx context.Context, method, path string, body []byte, v any) error {
	for n := 1; ; n++ {
		text, err := h.once(ctx, method, path, body)
		if err == nil {
			if v == nil {
				return nil
			}
			if err := json.Unmarshal(text, v); err != nil {
				return fmt.Errorf("hub %q: the answer is not as documented: %w", h.name, err)
			}
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		delay := time.Duration(n) * 250 * time.Millisecond
		var r *refusal
		if errors.As(err, &r) {
			if r.status != http.StatusTooManyRequests && r.status < 500 || r.after > callTime {
				return err
			}
			delay = max(delay, r.after)
		}
		if deadline, ok := ctx.Deadline(); n == attempts || ok && time.Until(deadline) < delay {
			return err
		}
		if err := h.pause(ctx, delay); err != nil {
			return err
		}
	}
}

func (h *Hub) once(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, attemptTime, fmt.Errorf("no answer within %v", attemptTime))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+h.host+path+"?api-version="+apiVersion, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("hub %q: %w", h.name, bare(err))
	}
	token, err := sas.Sign(h.host, h.policy, h.key, time.Now().Add(tokenLife))
	if err != nil {
		return nil, fmt.Errorf("hub %q: %w", h.name, err)
	}
	req.Header.Set("Authorization", token)
	req.Header.Set("User-Agent", "iotdm")
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if method == http.MethodDelete {
		req.Header.Set("If-Match", "*")
	}
	res, err := h.http.Do(req)
	if err != nil {
		return nil, h.unreachable(ctx, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, h.unreachable(ctx, err)
	case len(text) > maxAnswer:
		return nil, fmt.Errorf("hub %q: the answer is larger than %d bytes", h.name, maxAnswer)
	case res.StatusCode < 200 || res.StatusCode > 299:
		return nil, h.refusalOf(res, text)
	}
	return text, nil
}

func (h *Hub) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("hub %q: %w", h.name, bare(err))
}

// bare is an error of net/http without the URL that it repeats.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (h *Hub) refusalOf(res *http.Response, body []byte) *refusal {
	var answer struct {
		Message string        `json:"Message"`
		Code    number        `json:"errorCode"`
		Errors  []bulkFailure `json:"errors"`
	}
	_ = json.Unmarshal(body, &answer) // an answer of something in between may be no JSON
	r := h.refused(res.StatusCode, int(answer.Code), answer.Message)
	r.bulk = answer.Errors
	if seconds := res.Header.Get("Retry-After"); seconds != "" {
		if d, err := time.ParseDuration(seconds + "s"); err == nil {
			r.after = max(0, d)
		}
	}
	return r
}

// oneLine is a foreign text as it may be shown.
func oneLine(s string) string {
	return words.Clip(strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)))
}
