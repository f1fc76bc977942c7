package doctor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/sas"
)

// Names of the checks of ExamineToken, in their order.
const (
	TokenForm      = "form"      // the text
	TokenResource  = "resource"  // sr: what it is good for
	TokenPolicy    = "policy"    // skn: whose key it names
	TokenExpiry    = "expiry"    // se
	TokenSignature = "signature" // sig
)

// Claims are what a token is held against.
type Claims struct {
	Keys     []sas.Key // one of them has to have signed it; none: the signature is not checked
	Whose    string    // what the keys are, for people, such as `the key of policy "service"`
	Policy   string    // what skn has to be, in any case; empty for the key of a device or module
	AnyOwner bool      // whose the keys are is not known, so that skn may be anything
	Audience string    // what it has to cover, unencoded; empty: anything
	Now      time.Time
}

// ExamineToken says what is wrong with a shared access signature, part by part,
// and where it can tell, which mistake led to it. It is never shown the
// signature itself. Text that is no token has TokenForm alone.
func ExamineToken(text string, c Claims) []Check {
	t, err := sas.ParseToken(text)
	if err != nil {
		check := failed(TokenForm, err.Error(), formRemedy(text))
		check.Refused = true
		return []Check{check}
	}
	f := tokenFields(text)
	checks := []Check{examineForm(f), c.resource(t), c.policy(t), c.expiry(t), c.signature(t, f)}
	for i := range checks {
		checks[i].Refused = checks[i].Verdict == Failed
	}
	return checks
}

// tokenFields are the fields of a token as they were written, by their names
// in lower case.
func tokenFields(text string) map[string]string {
	fields := map[string]string{}
	_, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	for field := range strings.SplitSeq(strings.TrimSpace(rest), "&") {
		name, value, _ := strings.Cut(field, "=")
		fields[strings.ToLower(name)] = value
	}
	return fields
}

// formRemedy names the mistake in text that is no token.
func formRemedy(text string) string {
	const shape = "a token is: SharedAccessSignature sr=...&sig=...&se=..."
	text = strings.TrimSpace(text)
	lower := strings.ToLower(text)
	f := tokenFields(text)
	switch {
	case text == "":
		return "there is no text at all; is the file or variable empty?"
	case strings.HasPrefix(lower, `"`), strings.HasPrefix(lower, "'"):
		return "take the quotes off"
	case strings.HasPrefix(lower, "hostname="):
		return "this is a connection string; \"iotdm sas token --connection-string\" makes a token of it"
	case strings.HasPrefix(lower, "bearer "):
		return "this is a token of Entra ID; a shared access signature begins with the word SharedAccessSignature"
	case strings.HasPrefix(lower, "sr="), strings.HasPrefix(lower, "sig="), strings.HasPrefix(lower, "se="):
		return "put the word SharedAccessSignature and a blank in front"
	case strings.HasPrefix(lower, "sharedaccesssignature="):
		return "take what follows the first \"=\": the name is that of a member of a connection string"
	case strings.HasPrefix(lower, "sharedaccesssignature ") && !strings.HasPrefix(text, "SharedAccessSignature"):
		return "write the first word as SharedAccessSignature"
	case strings.ContainsAny(strings.TrimPrefix(text, "SharedAccessSignature "), " \t\r\n"):
		return "take the blanks and line ends out; was it broken over lines?"
	case f["sig"] != "" && twiceEncoded(f["sig"]):
		return "sig is percent-encoded twice (%25 is an encoded %): encode it once"
	case strings.ContainsAny(f["sig"], "-_"):
		return "sig is base64 for URLs: use the alphabet with + and /, then percent-encode it"
	case f["sig"] != "" && f["se"] != "" && f["sr"] != "":
		return "was sig cut off? It has 44 characters of base64 before it is percent-encoded"
	case f["sr"] != "" || f["sig"] != "":
		return "was it cut off? In a shell, put quotes around it: & ends a command"
	}
	return shape
}

func twiceEncoded(s string) bool { return strings.Contains(strings.ToLower(s), "%25") }

// examineForm finds what works on some hubs only.
func examineForm(f map[string]string) Check {
	switch {
	case strings.Contains(f["sig"], "+"):
		return warning(TokenForm, "sig has a bare +, which many programs read as a blank", "percent-encode sig: %2B for +, %2F for /, %3D for =")
	case strings.ContainsAny(f["sig"], "/="):
		return warning(TokenForm, "sig is not percent-encoded", "percent-encode sig: %2B for +, %2F for /, %3D for =")
	}
	return ok(TokenForm, "as documented")
}

func (c Claims) resource(t sas.Token) Check {
	once := unescape(t.Resource)
	shown := quoted(once)
	host, path, _ := strings.Cut(once, "/")
	if c.Audience != "" && !t.Covers(c.Audience) && t.Policy == "" && t.CoversIdentity(c.Audience) {
		return warning(TokenResource, fmt.Sprintf("%s stands for %s, which hubs need not accept", shown, quoted(c.Audience)), "sign for "+c.Audience)
	}
	if c.Audience == "" || t.Covers(c.Audience) {
		if twiceEncoded(t.Resource) {
			return warning(TokenResource, shown+" is percent-encoded twice, which hubs need not accept", "encode sr once before signing")
		}
		if host != strings.ToLower(host) {
			return warning(TokenResource, shown+" has a host name in upper case", "write sr in lower case before signing, as IoT Hub's documents ask")
		}
		return ok(TokenResource, shown)
	}
	wanted, wantedPath, _ := strings.Cut(c.Audience, "/")
	detail := fmt.Sprintf("%s does not cover %s", shown, quoted(c.Audience))
	remedy := "sign for " + c.Audience
	twice := unescape(once)
	switch {
	case strings.HasPrefix(strings.ToLower(once), "https://"), strings.HasPrefix(strings.ToLower(once), "http://"):
		remedy = "leave out the scheme: " + remedy
	case twice != once && (sas.Token{Resource: twice}).Covers(c.Audience):
		detail += ": it is percent-encoded twice"
		remedy = "encode sr once before signing"
	case (sas.Token{Resource: strings.TrimRight(once, "/")}).Covers(c.Audience):
		detail += ": it ends with a slash"
	case !(sas.Token{Resource: host}).Covers(wanted):
		detail += ": it is for another hub"
	case wantedPath == "" && strings.HasPrefix(path, "devices/"):
		detail += ": it is a device's token, and this is a service's call"
		remedy = fmt.Sprintf("sign for %s, with the key of a policy such as service", c.Audience)
	case strings.EqualFold(once, c.Audience):
		detail += ": ids are case-sensitive"
	case strings.HasPrefix(once, c.Audience+"/"):
		detail += ": it is for less"
	case strings.HasPrefix(path, "devices/"):
		detail += ": it is for another device or module"
	}
	return failed(TokenResource, detail, remedy)
}

func (c Claims) policy(t sas.Token) Check {
	switch {
	case t.Policy == "" && c.Policy != "" && !c.AnyOwner:
		return failed(TokenPolicy, "it has no skn, so that a hub looks for a device's key", "add skn="+c.Policy)
	case t.Policy == "" && c.Audience != "" && !strings.Contains(c.Audience, "/"):
		return failed(TokenPolicy, "it has no skn: a device's or module's key cannot sign for a whole hub", "add skn= and the name of the policy whose key signs")
	case t.Policy == "":
		return ok(TokenPolicy, "none: a device's or module's own key")
	case c.AnyOwner || strings.EqualFold(t.Policy, c.Policy):
		return ok(TokenPolicy, quoted(t.Policy))
	case c.Policy == "":
		return failed(TokenPolicy, fmt.Sprintf("it names policy %s, and is checked with %s", quoted(t.Policy), c.Whose), "leave out skn with a device's or module's own key")
	}
	return failed(TokenPolicy, fmt.Sprintf("it names policy %s, and the key is that of policy %s", quoted(t.Policy), quoted(c.Policy)), "write skn="+c.Policy)
}

func (c Claims) expiry(t sas.Token) Check {
	left := t.Expiry.Sub(c.Now).Round(time.Second)
	at := t.Expiry.UTC().Format(time.RFC3339)
	switch {
	case t.Expired(c.Now) && t.Expiry.Year() < 2010:
		return failed(TokenExpiry, at+" is long ago", "se is the time in seconds since 1970, and not how long the token lasts")
	case t.Expired(c.Now):
		return failed(TokenExpiry, fmt.Sprintf("%s, %s ago", at, span(-left)), "sign a new one, for example with \"iotdm sas token\"")
	case left <= 0:
		return warning(TokenExpiry, fmt.Sprintf("%s, %s ago; hubs allow clocks to be %v off", at, span(-left), sas.Skew), "sign a new one")
	case t.Expiry.Year() > 2999:
		return warning(TokenExpiry, "not before the year "+t.Expiry.UTC().Format("2006"), "is se in milliseconds? It is in seconds since 1970")
	}
	return ok(TokenExpiry, fmt.Sprintf("%s, in %s", at, span(left)))
}

// span prints d in days when seconds would only be noise.
func span(d time.Duration) string {
	if d > 72*time.Hour {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

func (c Claims) signature(t sas.Token, f map[string]string) Check {
	if len(c.Keys) == 0 {
		return skipped(TokenSignature, "there is no key to check it with")
	}
	for _, key := range c.Keys {
		if t.SignedBy(key) {
			return ok(TokenSignature, "made with "+c.Whose)
		}
	}
	for _, key := range c.Keys {
		if detail, remedy := signingMistake(key, f); detail != "" {
			return failed(TokenSignature, detail, remedy)
		}
	}
	return failed(TokenSignature, "not made with "+c.Whose,
		"check that key and token belong together, and that nobody renewed the key or changed the token after signing")
}

// signingMistake looks for a well-known mistake that explains a signature
// which key should have made.
func signingMistake(key sas.Key, f map[string]string) (detail, remedy string) {
	sig, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(unescape(f["sig"]), " ", "+"))
	secret, badKey := base64.StdEncoding.DecodeString(string(key))
	if err != nil || badKey != nil {
		return "", ""
	}
	sr, se := f["sr"], f["se"]
	const encoded = "sign sr exactly as the token has it, percent-encoded"
	for _, m := range []struct {
		secret         []byte
		text           string
		detail, remedy string
	}{
		{[]byte(key), sr + "\n" + se, "made with the text of the key", "decode the key from base64 before signing"},
		{secret, unescape(sr) + "\n" + se, "made over sr before it was percent-encoded", encoded},
		{secret, url.QueryEscape(sr) + "\n" + se, "made over sr percent-encoded, and the token has it bare", encoded},
		{secret, lowerHex(sr) + "\n" + se, "made over sr with hexadecimal digits in lower case, and the token has them in upper case", encoded},
		{secret, strings.ToLower(sr) + "\n" + se, "made over sr in lower case, and the token has it otherwise", encoded},
		{secret, sr + se, "made without the line feed between sr and se", "sign sr, a line feed, and se"},
		{secret, sr + "\r\n" + se, "made with a carriage return before the line feed", "sign sr, a line feed, and se"},
		{secret, sr + `\n` + se, `made with a backslash and an "n" in place of the line feed`, "sign sr, a line feed, and se"},
		{secret, sr + "\n" + se + "\n", "made with a line feed at the end", "sign sr, a line feed, and se"},
		{secret, se + "\n" + sr, "made over se before sr", "sign sr, a line feed, and se"},
	} {
		mac := hmac.New(sha256.New, m.secret)
		mac.Write([]byte(m.text))
		if hmac.Equal(mac.Sum(nil), sig) {
			return m.detail, m.remedy
		}
	}
	return "", ""
}

// lowerHex writes percent-escapes with lower-case digits.
func lowerHex(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i:i+3], strings.ToLower(string(b[i:i+3])))
		}
	}
	return string(b)
}

// unescape undoes percent-encoding; text with a bare % stands for itself.
func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// checkToken looks at the credential without the hub.
func (x *examination) checkToken() Check {
	c := x.Connection
	now := x.Now()
	switch {
	case x.Credential != nil:
		return skipped(CheckToken, "Entra ID makes it")
	case c.X509:
		return x.checkClientCertificate()
	case c.SharedAccessKey != "":
		return ok(CheckToken, fmt.Sprintf("signed with the key whenever one is needed, for %s", c.Audience()))
	}
	claims := Claims{AnyOwner: true, Audience: c.Audience(), Now: now}
	claims.Keys, claims.Whose = x.keysFor(string(c.SharedAccessSignature))
	var warned Check
	for _, check := range ExamineToken(string(c.SharedAccessSignature), claims) {
		check.Detail = check.Name + ": " + check.Detail
		check.Name = CheckToken
		if check.Verdict == Failed {
			return check
		}
		if check.Verdict == Warning && warned.Name == "" {
			warned = check
		}
	}
	if warned.Name != "" {
		return warned
	}
	t, _ := sas.ParseToken(string(c.SharedAccessSignature))
	return ok(CheckToken, fmt.Sprintf("ready-made, for %s, until %s", quoted(unescape(t.Resource)), t.Expiry.UTC().Format(time.RFC3339)))
}

// keysFor returns the keys, as far as they are known, that may have signed.
func (x *examination) keysFor(token string) (keys []sas.Key, whose string) {
	t, err := sas.ParseToken(token)
	if err != nil {
		return nil, ""
	}
	if t.Policy != "" {
		return x.Policies[strings.ToLower(t.Policy)], "the key of policy " + quoted(t.Policy)
	}
	if x.identity == nil || x.identity.err != nil {
		return nil, ""
	}
	return x.identity.keys, "the key of " + target.Noun(x.Device)
}

func (x *examination) checkClientCertificate() Check {
	if x.Certificate == nil || len(x.Certificate.Certificate) == 0 {
		return skipped(CheckToken, "the connection string has x509=true, and there is no certificate; name it with --cert-file")
	}
	leaf, err := leafOf(x.Certificate)
	if err != nil {
		return failed(CheckToken, "the certificate cannot be read: "+err.Error(), "name another one with --cert-file")
	}
	now := x.Now()
	detail := fmt.Sprintf("certificate %s, valid until %s", certName(leaf), day(leaf.NotAfter))
	if outside(leaf, now) {
		c := failed(CheckToken, fmt.Sprintf("the device's certificate %s is valid from %s to %s, and not now", certName(leaf), day(leaf.NotBefore), day(leaf.NotAfter)),
			"have a new certificate made for the device")
		c.Refused = true
		return c
	}
	return ok(CheckToken, detail)
}
