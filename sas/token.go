package sas

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Token is a parsed shared access signature. Parsing proves nothing: use [Token.SignedBy],
// [Token.Covers] and [Token.Expired]. Printed or logged, its signature shows as "***".
type Token struct {
	Resource string    // the sr field exactly as received, because the signature covers those bytes
	Policy   string    // the decoded skn field; empty when the key of a device or module signed
	Expiry   time.Time // the se field; a time after the year 9999 reads as that year's end

	se  string            // as received
	sig [sha256.Size]byte // decoded
}

// ParseToken parses a token as an MQTT password or an Authorization header carries it. The fields
// may come in any order and their names in any case; unknown and empty fields are skipped. Errors
// name the field and do not show its content.
func ParseToken(s string) (Token, error) {
	word, fields, _ := strings.Cut(strings.TrimSpace(s), " ")
	fields = strings.TrimSpace(fields)
	if word != scheme || strings.ContainsAny(fields, " \t\r\n\v\f") {
		return Token{}, errors.New(`token is not "SharedAccessSignature", one blank and the fields`)
	}
	var sr, sig, se, skn string
	for field := range strings.SplitSeq(fields, "&") {
		if field == "" {
			continue
		}
		name, value, ok := strings.Cut(field, "=")
		if !ok {
			return Token{}, errors.New(`token has a field without "="`)
		}
		var to *string
		switch {
		case strings.EqualFold(name, "sr"):
			to = &sr
		case strings.EqualFold(name, "sig"):
			to = &sig
		case strings.EqualFold(name, "se"):
			to = &se
		case strings.EqualFold(name, "skn"):
			to = &skn
		default:
			continue
		}
		if *to != "" {
			return Token{}, fmt.Errorf("token has %s twice", strings.ToLower(name))
		}
		*to = value
	}
	t := Token{Resource: sr, Policy: unescape(skn), se: se}
	var err error
	switch {
	case sr == "":
		err = errors.New("token has no sr")
	case sig == "":
		err = errors.New("token has no sig")
	case se == "":
		err = errors.New("token has no se")
	default:
		if t.Expiry, err = parseExpiry(se); err == nil {
			t.sig, err = parseSignature(sig)
		}
	}
	if err != nil {
		return Token{}, err
	}
	return t, nil
}

// lastSecond is the end of the year 9999. IoT Hub documents no upper bound for an expiry, and some
// programs write a very large one for "never"; up to here times can be compared and printed.
const lastSecond = 253402300799

// parseExpiry reads seconds since 1970. A fraction is dropped: a client may write a float.
func parseExpiry(se string) (time.Time, error) {
	whole, fraction, _ := strings.Cut(se, ".")
	if whole == "" || !digits(whole) || !digits(fraction) {
		return time.Time{}, errors.New("token's se is not a number of seconds since 1970")
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > lastSecond {
		n = lastSecond
	}
	return time.Unix(n, 0).UTC(), nil
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func parseSignature(sig string) (sum [sha256.Size]byte, err error) {
	// A client that form-decoded its own text has blanks where base64 has "+".
	text := strings.ReplaceAll(unescape(sig), " ", "+")
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("token's sig is not base64 of %d bytes", len(sum))
	}
	return [sha256.Size]byte(b), nil
}

// SignedBy reports whether key signed the token. The comparison takes the same time wherever the
// signatures differ. An invalid or empty key has signed nothing.
func (t Token) SignedBy(key Key) bool {
	secret, err := key.decode()
	if err != nil {
		return false
	}
	sum := signature(secret, t.Resource, t.se)
	return subtle.ConstantTimeCompare(sum[:], t.sig[:]) == 1
}

// SignedByText is SignedBy for who signs with the text of the key in place of the bytes that it
// encodes, as Service Bus and Event Hubs do and their clients.
func (t Token) SignedByText(key Key) bool {
	if key == "" {
		return false
	}
	sum := signature([]byte(key), t.Resource, t.se)
	return subtle.ConstantTimeCompare(sum[:], t.sig[:]) == 1
}

// Expired reports whether the token is over at now, [Skew] included.
func (t Token) Expired(now time.Time) bool { return now.After(t.Expiry.Add(Skew)) }

// Covers reports whether the token's resource is audience or, by whole segments, a prefix of it:
// host/devices covers host/devices/d, and host/devices/d does not cover host/devices/d2. The
// audience is unencoded. Host names are compared without case and without port, ids exactly.
//
// Clients encode the resource not at all (C, partly Java), once (Python, Node), the id twice (.NET),
// or all of it twice and the id three times (amenzhinsky/iothub, for modules); the token covers what
// any of these readings covers.
func (t Token) Covers(audience string) bool {
	plain := func(segment string) string { return segment }
	decoded := t.decoded()
	return coversSegments(t.Resource, audience, plain) ||
		coversSegments(decoded, audience, plain) ||
		coversSegments(decoded, audience, unescape)
}

// CoversIdentity is Covers for the audience of a device or module, when its own key or that of its
// device has signed the token. Whose token it is has been proved then, so that two more forms can't
// be taken for a token of somebody else's: all in lower case, as IoT Hub's documents ask for and IoT
// Edge writes (Azure/iot-identity-service: identity/aziot-cloud-client-async/src/connector.rs), and
// without "devices/", as amenzhinsky/iothub writes over HTTPS. That IoT Hub takes them is assumed
// from there. Identities that share a key have themselves to blame.
func (t Token) CoversIdentity(audience string) bool {
	if t.Covers(audience) || t.Covers(strings.ToLower(audience)) {
		return true
	}
	host, path, ok := strings.Cut(audience, "/devices/")
	// Of a device called "devices" the short form would be the long one of others.
	return ok && !strings.HasPrefix(strings.ToLower(path)+"/", "devices/") && t.Covers(host+"/"+path)
}

// Host returns the name of the hub that the token is for, with the port if it has one.
func (t Token) Host() string {
	host, _, _ := strings.Cut(t.decoded(), "/")
	return host
}

// Entity returns what the token is for when that may be an entity of Event Hubs, whose clients write
// a URL, such as "sb%3a%2f%2fhub.example.com%2fevents": the host without port, and the path, which
// begins with a slash unless it is empty. Both are in lower case, as Event Hubs compares them.
func (t Token) Entity() (host, path string) {
	text := strings.ToLower(t.decoded())
	if _, after, ok := strings.Cut(text, "://"); ok {
		text = after
	}
	host, path, _ = strings.Cut(text, "/")
	if path = strings.Trim(path, "/"); path != "" {
		path = "/" + path
	}
	return withoutPort(host), path
}

// CoversEntity reports whether the token is for an entity of Event Hubs at path, such as
// "/events/ConsumerGroups/$Default", or, by whole segments, for one that holds it. The host is not
// looked at; see Entity.
func (t Token) CoversEntity(path string) bool {
	_, scope := t.Entity()
	path = strings.ToLower(strings.TrimSuffix(path, "/"))
	return scope == "" || path == scope || strings.HasPrefix(path, scope+"/")
}

// Paths returns the segments of the resource behind the host, unencoded: in each of the readings that
// Covers takes, those that are alike once.
func (t Token) Paths() [][]string {
	decoded := t.decoded()
	var all [][]string
	for _, reading := range []struct {
		text  string
		plain func(string) string
	}{{decoded, func(s string) string { return s }}, {decoded, unescape}, {t.Resource, func(s string) string { return s }}} {
		_, text, _ := strings.Cut(reading.text, "/")
		var path []string
		for segment := range strings.SplitSeq(text, "/") {
			if segment != "" {
				path = append(path, reading.plain(segment))
			}
		}
		if !slices.ContainsFunc(all, func(have []string) bool { return slices.Equal(have, path) }) {
			all = append(all, path)
		}
	}
	return all
}

// decoded undoes the percent-encoding of the resource: once, or twice if there is no slash before.
// The name of a hub holds no "%", so that what has no slash yet was encoded as a whole.
func (t Token) decoded() string {
	once := unescape(t.Resource)
	if strings.Contains(once, "/") {
		return once
	}
	return unescape(once)
}

// coversSegments compares segment by segment, each of scope's decoded first. Decoding comes after
// splitting so that an encoded slash inside an id cannot turn into a boundary.
func coversSegments(scope, audience string, decode func(string) string) bool {
	for first := true; ; first = false {
		a, aRest, aMore := strings.Cut(scope, "/")
		b, bRest, bMore := strings.Cut(audience, "/")
		if first {
			if !strings.EqualFold(withoutPort(decode(a)), withoutPort(b)) {
				return false
			}
		} else if decode(a) != b {
			return false
		}
		if !aMore {
			return true
		}
		if !bMore {
			return false
		}
		scope, audience = aRest, bRest
	}
}

func withoutPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i > 0 && i+1 < len(host) && digits(host[i+1:]) {
		if strings.IndexByte(host, ':') == i || host[i-1] == ']' { // not inside an IPv6 address
			return host[:i]
		}
	}
	return host
}

// String describes the token without its signature.
func (t Token) String() string {
	s := scheme + " sr=" + t.Resource + "&sig=" + redacted + "&se=" + t.se
	if t.Policy != "" {
		s += "&skn=" + escape(t.Policy)
	}
	return s
}

// Format prints String for every verb.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }
