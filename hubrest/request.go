package hubrest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/iotdm/iotdm/internal/jsontext"
)

const (
	// defaultTimeout bounds one attempt, from dialling to the last byte of the answer.
	defaultTimeout = time.Minute

	// What is kept of an answer: a page of 1,000 twins with full sections and metadata is less, and so is the report
	// of a bulk request that failed for every entry.
	defaultMaxBody = 256 << 20
	maxErrorBody   = 1 << 20
)

var userAgent = "iotdm-hubrest (" + runtime.Version() + "; " + runtime.GOOS + "/" + runtime.GOARCH + ")"

// A request is one call of the REST API.
type request struct {
	what       string // what it does, as errors begin
	method     string
	path       []string // not escaped
	query      url.Values
	apiVersion string      // empty: that of the peer
	ifMatch    string      // as in the header; empty: none
	header     http.Header // more headers
	body       any         // marshalled as JSON; a []byte is sent as it is; nil: no body
	repeat     repeat
	timeout    time.Duration // of one attempt; 0: defaultTimeout
	// decode reads the body of a success. Nil: json.Unmarshal.
	decode func(body []byte, out any) error
	// accept takes an answer that isn't 2xx for a success.
	accept func(status int, h http.Header) bool
}

// answer is what came back for one attempt, whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do makes the request, repeats it where that is safe, and decodes the answer into out, if that isn't nil.
// Errors begin with what the request does; a refusal by the hub is an *Error.
func (c *requester) do(ctx context.Context, r request, out any) (http.Header, error) {
	for _, s := range r.path {
		// Nothing on the way may take these for something else than a name: "DELETE /devices/" is not a device.
		if s == "" || s == "." || s == ".." {
			return nil, fmt.Errorf("%s: %q can't be part of a URL", r.what, s)
		}
	}
	body, err := encode(r.body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.what, err)
	}
	if err := checkHeader(http.Header{"If-Match": {r.ifMatch}}); err != nil {
		return nil, fmt.Errorf("%s: %w", r.what, err)
	}
	if err := checkHeader(r.header); err != nil {
		return nil, fmt.Errorf("%s: %w", r.what, err)
	}
	a, err := c.attempts(ctx, r, body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.what, err)
	}
	if out != nil && a.status != http.StatusNoContent {
		decode := r.decode
		if decode == nil {
			decode = json.Unmarshal
		}
		if err := decode(a.body, out); err != nil {
			return nil, fmt.Errorf("%s: %s's answer (%d) is not as documented: %w", r.what, c.peer.name, a.status, err)
		}
	}
	return a.header, nil
}

// attempt sends r once. sent tells whether the hub may have seen it.
func (c *requester) attempt(ctx context.Context, r request, body []byte) (a answer, sent bool, err error) {
	auth, err := c.cred.authorization(ctx)
	if err != nil {
		return answer{}, false, &credentialError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.timeout, defaultTimeout))
	defer cancel()
	var gotConn atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { gotConn.Store(true) }})
	req := c.newRequest(ctx, r, body)
	req.Header.Set("Authorization", auth)

	log := c.log.With(keyMethod, r.method, keyPath, req.URL.RequestURI(), keyRequestID, req.Header.Get("Request-Id"))
	log.Debug("request", keyIfMatch, r.ifMatch, keyBody, bodyText(body))
	start := time.Now()
	a, err = c.roundTrip(req)
	if err != nil {
		log.Debug("no answer", keyTook, time.Since(start), keyErr, err)
		return answer{}, gotConn.Load(), err
	}
	if a.header.Get("Server") == "iotdm" {
		c.own.Store(true)
	}
	log.Debug("answer", keyStatus, a.status, keyTook, time.Since(start), keyBody, bodyText(a.body))
	if a.status/100 != 2 && (r.accept == nil || !r.accept(a.status, a.header)) {
		return a, true, c.parseError(a)
	}
	return a, true, nil
}

func (c *requester) newRequest(ctx context.Context, r request, body []byte) *http.Request {
	query := url.Values{"api-version": {cmp.Or(r.apiVersion, c.peer.apiVersion)}}
	for k, v := range r.query {
		query[k] = v
	}
	plain, escaped := "", ""
	for _, s := range r.path {
		plain += "/" + s
		escaped += "/" + escape(s)
	}
	req := (&http.Request{
		Method: r.method,
		// RawPath keeps the escaping: Go's own leaves characters such as "+" and "$" bare.
		URL:    &url.URL{Scheme: "https", Host: c.host, Path: plain, RawPath: escaped, RawQuery: query.Encode()},
		Host:   c.host,
		Header: make(http.Header),
	}).WithContext(ctx)
	if body != nil {
		// Without GetBody the transport itself repeats nothing that has a body.
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.ContentLength = int64(len(body))
		if len(body) == 0 {
			req.Body = http.NoBody // else zero means a length that isn't known
		}
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Request-Id", newUUID())
	if r.ifMatch != "" {
		req.Header.Set("If-Match", r.ifMatch)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	return req
}

// roundTrip returns the whole answer. What the hub sends beyond the limits is an error in a success, and dropped in an
// error.
func (c *requester) roundTrip(req *http.Request) (answer, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, netError(err)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode/100 != 2 {
		// The status says enough, should the rest be cut off.
		a.body, _ = io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
		return a, nil
	}
	a.body, err = io.ReadAll(io.LimitReader(resp.Body, c.maxBody+1))
	if err != nil {
		return answer{}, netError(err)
	}
	if int64(len(a.body)) > c.maxBody {
		return answer{}, fmt.Errorf("%s's answer %w than %d bytes", c.peer.name, errTooLarge, c.maxBody)
	}
	return a, nil
}

// A credentialError is a failure to get a token, which has been tried often enough where it was tried.
type credentialError struct{ error }

func (e *credentialError) Unwrap() error { return e.error }

var errTooLarge = errors.New("is larger")

// netError takes the URL out of the text of err, which the caller knows, and makes time-outs ErrTimedOut.
func netError(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var ne net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		return fmt.Errorf("%w: %w", ErrTimedOut, err)
	}
	return err
}

// encode marshals v as it is: the bytes of strings and of raw JSON stay, which json.Marshal would escape for HTML.
func encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	}
	return jsontext.Marshal(v)
}

// escape percent-encodes everything in a path segment that RFC 3986 does not call unreserved.
func escape(segment string) string {
	const upperHex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(segment) {
		c := segment[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~", c) >= 0:
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String()
}

// quoteETag returns etag as the header If-Match wants it. The service ignores a tag without quotes, which would make a
// conditional request unconditional. An empty etag is the wildcard.
func quoteETag(etag string) string {
	etag = strings.Trim(etag, `"`)
	if etag == "" || etag == "*" {
		return "*"
	}
	return `"` + etag + `"`
}

// newUUID returns a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
