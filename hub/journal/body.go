package journal

import (
	"encoding/json"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/iotdm/iotdm/internal/jsontext"
)

// MaxBody is how much of a body is kept.
const MaxBody = 16 << 10

// A Body is what was sent, as far as it is kept.
type Body struct {
	kept []byte
	size int
}

// NewBody keeps the first MaxBody bytes of a body. It copies them.
func NewBody(b []byte) Body {
	var r Recorder
	r.Write(b)
	return r.Body()
}

// A Recorder takes down a body while somebody else reads it. The zero value is ready.
type Recorder struct{ body Body }

// Write implements io.Writer. It never fails.
func (r *Recorder) Write(b []byte) (int, error) {
	r.body.size += len(b)
	r.body.kept = append(r.body.kept, b[:min(len(b), MaxBody-len(r.body.kept))]...)
	return len(b), nil
}

// Body returns the body.
func (r *Recorder) Body() Body {
	b := r.body
	if !b.Whole() {
		b.kept = wholeRunes(b.kept)
	}
	return b
}

// SecretBody returns a body that may hold keys: of members that have such a name the value is "***", and what is not JSON,
// or longer than MaxBody, is not kept.
func (r *Recorder) SecretBody() Body {
	if !r.body.Whole() || !json.Valid(r.body.kept) {
		return Body{size: r.body.size}
	}
	kept := redact(nil, r.body.kept)
	return Body{kept: kept, size: len(kept)}
}

// wholeRunes leaves out the beginning of a character at the end of a text. What is no text stays as it is.
func wholeRunes(b []byte) []byte {
	for n := range min(utf8.UTFMax, len(b)) {
		if utf8.Valid(b[:len(b)-n]) {
			return b[:len(b)-n]
		}
	}
	return b
}

// Bytes returns what is kept. It must not be changed.
func (b Body) Bytes() []byte { return b.kept }

// Whole reports whether all of the body is kept.
func (b Body) Whole() bool { return len(b.kept) == b.size }

// secret are the names of members whose values are secrets, in lower case: those of the identity registry, and what else
// people put beside them.
var secret = map[string]bool{
	"primarykey": true, "secondarykey": true, "sharedaccesskey": true, "sharedaccesssignature": true, "connectionstring": true,
	"primaryconnectionstring": true, "secondaryconnectionstring": true, "password": true, "secret": true, "token": true,
	"sastoken": true, "authorization": true, "privatekey": true,
}

// WithoutSecrets returns the query of a request without the values of parameters that are credentials.
func WithoutSecrets(query string) string {
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		key, _, found := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if name = strings.ToLower(name); found && (err != nil || name == "sig" || secret[name]) {
			pairs[i] = key + "=***"
		}
	}
	return strings.Join(pairs, "&")
}

// redact appends JSON text, which is valid, with the values of secret members replaced.
func redact(to, text []byte) []byte {
	at := jsontext.SkipSpace(text, 0)
	if at >= len(text) || text[at] != '{' && text[at] != '[' {
		return append(to, text...)
	}
	c := jsontext.Walk(text)
	to = append(to, text[at])
	separator := ""
	if text[at] == '[' {
		for c.Element() {
			to = redact(append(to, separator...), c.Value())
			separator = ","
		}
		return append(to, ']')
	}
	for c.Member() {
		to = append(append(append(to, separator...), c.Key()...), ':')
		if secret[strings.ToLower(string(jsontext.Unquote(c.Key())))] {
			to = append(to, `"***"`...)
		} else {
			to = redact(to, c.Value())
		}
		separator = ","
	}
	return append(to, '}')
}
