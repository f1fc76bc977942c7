package hubrest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/iotdm/iotdm/internal/wait"
)

const (
	// renewBefore is how long before its end a token is replaced, which leaves time for an outage.
	renewBefore = 5 * time.Minute
	// renewAgain is how long a valid token is used on after it couldn't be replaced.
	renewAgain = 30 * time.Second

	// netTries is how often an endpoint is tried that can't be reached: it may not exist on this machine.
	netTries = 3

	maxTokenBody = 1 << 20
)

// A TokenError is the refusal of Microsoft Entra ID or of a managed identity's endpoint to give out a token.
type TokenError struct {
	Status  int    // HTTP status
	Name    string // such as invalid_client
	Message string // begins with a number such as AADSTS7000215
}

// Error returns the status, the name and the words.
func (e *TokenError) Error() string {
	s := "the answer is " + strconv.Itoa(e.Status)
	if e.Name != "" {
		s += " " + e.Name
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is matches ErrUnauthorized when the credential was refused.
func (e *TokenError) Is(target error) bool {
	return target == ErrUnauthorized && (e.Status == http.StatusBadRequest || e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
}

// accessToken is a bearer token.
type accessToken struct {
	text            string
	renewAt, expiry time.Time
}

// A tokenSource gets bearer tokens, mostly over HTTP, and keeps each until it is time for the next.
type tokenSource struct {
	from    string // who gives out the tokens, for errors
	client  *http.Client
	now     func() time.Time
	request func(context.Context) (*http.Request, error) // makes the request for a token
	get     func(context.Context) (accessToken, error)   // gets one in another way; nil: by request
	wait    func(context.Context, time.Duration) error
	backoff backoff.ExponentialBackOff // between attempts
	tries   int
	again   func(status int) bool // which answers call for another attempt

	fetching chan struct{} // holds one element while somebody fetches
	mu       sync.Mutex    // guards what follows
	token    accessToken
}

func newTokenSource(from string, client *http.Client, now func() time.Time) *tokenSource {
	c := http.Client{Timeout: 30 * time.Second}
	if client != nil {
		c = *client
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &tokenSource{
		from:   from,
		client: &c,
		now:    now,
		wait:   wait.For,
		backoff: backoff.ExponentialBackOff{
			InitialInterval: 500 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
		},
		tries:    4,
		again:    func(status int) bool { return status == http.StatusTooManyRequests || status >= 500 },
		fetching: make(chan struct{}, 1),
	}
}

// Authorization returns the header's value. One caller fetches a new token; the others go on with the old one as long
// as that is valid, and wait when there is none.
func (s *tokenSource) Authorization(ctx context.Context) (string, error) {
	token := s.current()
	if s.now().Before(token.renewAt) {
		return token.header(), nil
	}
	if s.now().Before(token.expiry) {
		select {
		case s.fetching <- struct{}{}:
		default:
			return token.header(), nil
		}
	} else {
		select {
		case s.fetching <- struct{}{}:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	defer func() { <-s.fetching }()
	if token = s.current(); s.now().Before(token.renewAt) { // somebody else has fetched it
		return token.header(), nil
	}
	get := s.get
	if get == nil {
		get = s.fetch
	}
	fetched, err := get(ctx)
	if err != nil {
		if now := s.now(); now.Before(token.expiry) {
			token.renewAt = now.Add(renewAgain)
			s.keep(token)
			return token.header(), nil
		}
		return "", fmt.Errorf("get token from %s: %w", s.from, err)
	}
	s.keep(fetched)
	return fetched.header(), nil
}

func (t accessToken) header() string { return "Bearer " + t.text }

func (s *tokenSource) current() accessToken {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.token
}

func (s *tokenSource) keep(t accessToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = t
}

// fetch asks for a token until there is one, a clear refusal, or no more patience.
func (s *tokenSource) fetch(ctx context.Context) (accessToken, error) {
	pause := s.backoff
	pause.Reset()
	for n := 1; ; n++ {
		req, err := s.request(ctx)
		if err != nil {
			return accessToken{}, err
		}
		status, header, body, err := s.roundTrip(req)
		if err == nil && status == http.StatusOK {
			return parseAccessToken(body, s.now())
		}
		more := err != nil && transient(err) && n < netTries
		if err == nil {
			err, more = parseTokenError(status, body), s.again(status)
		}
		if ctx.Err() != nil {
			return accessToken{}, context.Cause(ctx)
		}
		delay := pause.NextBackOff()
		if after, ok := retryAfter(header, s.now()); ok {
			delay += after
		}
		if !more || n == s.tries || delay > maxRetryAfter {
			return accessToken{}, err
		}
		if err := s.wait(ctx, delay); err != nil {
			return accessToken{}, err
		}
	}
}

func (s *tokenSource) roundTrip(req *http.Request) (status int, header http.Header, body []byte, err error) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, nil, netError(err)
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxTokenBody))
	if err != nil {
		return 0, nil, nil, netError(err)
	}
	return resp.StatusCode, resp.Header, body, nil
}

// wireSeconds is a number that some endpoints write as text.
type wireSeconds int64

func (n *wireSeconds) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(string(bytes.Trim(b, `"`)), 10, 64)
	*n = wireSeconds(v)
	return err
}

// parseAccessToken reads the answer of any token endpoint. Some give the seconds left, some the Unix time of the end.
func parseAccessToken(body []byte, now time.Time) (accessToken, error) {
	var wire struct {
		Token     string       `json:"access_token"`
		ExpiresIn *wireSeconds `json:"expires_in"`
		ExpiresOn *wireSeconds `json:"expires_on"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return accessToken{}, errors.New("the answer is not as documented") // it may hold the token
	}
	var expiry time.Time
	switch {
	case wire.ExpiresIn != nil:
		expiry = now.Add(time.Duration(*wire.ExpiresIn) * time.Second)
	case wire.ExpiresOn != nil:
		expiry = time.Unix(int64(*wire.ExpiresOn), 0)
	}
	return newAccessToken(wire.Token, expiry, now)
}

// newAccessToken refuses what is no token, or one that is over.
func newAccessToken(text string, expiry, now time.Time) (accessToken, error) {
	t := accessToken{text: text, expiry: expiry}
	life := expiry.Sub(now)
	if t.text == "" || life <= 0 || checkHeader(http.Header{"Authorization": {t.text}}) != nil {
		return accessToken{}, errors.New("the answer holds no valid token")
	}
	t.renewAt = t.expiry.Add(-min(renewBefore, life/2))
	return t, nil
}

func parseTokenError(status int, body []byte) *TokenError {
	e := &TokenError{Status: status}
	var wire struct {
		Error       json.RawMessage
		Description string `json:"error_description"`
		Message     string
	}
	if json.Unmarshal(body, &wire) != nil {
		e.Message = oneLine(string(body))
		return e
	}
	_, e.Name = parseCode(wire.Error)
	e.Message = oneLine(wire.Description)
	if e.Message == "" {
		e.Message = oneLine(wire.Message)
	}
	return e
}
