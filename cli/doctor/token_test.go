package doctor_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/cli/doctor"
	"github.com/iotdm/iotdm/sas"
)

// The first vectors of the documentation of the wire format.
const (
	deviceKey   = "TT5ob9Ntspj4le0WvZE5ZSBQymQ1maN+qaqERaqDXvI="
	deviceToken = "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev-1&sig=pO4BCc2TyIeahEuortMJ2i0k3lrfXJseIYRXuP52SMI%3D&se=1767225600"
	policyKey   = "HsNcF4r5reEvE1pNIFlbWNlrAGWklf6DmMSwN56YKSw="
	policyToken = "SharedAccessSignature sr=contoso.azure-devices.net&sig=nk5%2F0ab%2FKIznGH7hvpe%2BuXPRCrOzawm876x5ETyyN1M%3D&se=4102444800&skn=device"
)

var tokenTime = time.Unix(1767225600, 0).Add(-time.Hour) // an hour before the end of deviceToken

var (
	ofDevice = doctor.Claims{Keys: []sas.Key{deviceKey}, Whose: `the key of device "dev-1"`, Audience: "contoso.azure-devices.net/devices/dev-1", Now: tokenTime}
	ofPolicy = doctor.Claims{Keys: []sas.Key{policyKey}, Whose: `the key of policy "device"`, Policy: "device", Audience: "contoso.azure-devices.net", Now: tokenTime}
)

// forge makes a token of parts, signed over what.
func forge(sr, what, se, tail string, key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(what))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se + tail
}

// sign makes the token that key signs for a resource as it stands.
func sign(sr, se, tail string) string {
	secret, _ := base64.StdEncoding.DecodeString(deviceKey)
	return forge(sr, sr+"\n"+se, se, tail, secret)
}

func TestExamineToken(t *testing.T) {
	const sr, se = "contoso.azure-devices.net%2Fdevices%2Fdev-1", "1767225600"
	secret, err := base64.StdEncoding.DecodeString(deviceKey)
	if err != nil {
		t.Fatal(err)
	}
	with := func(c doctor.Claims, change func(*doctor.Claims)) doctor.Claims { change(&c); return c }
	service := with(ofDevice, func(c *doctor.Claims) { c.Audience, c.Policy = "contoso.azure-devices.net", "service" })
	for _, tt := range []struct {
		name           string
		token          string
		claims         doctor.Claims
		check          string // "" for a token with which all is well
		verdict        doctor.Verdict
		detail, remedy string
	}{
		{name: "a device's", token: deviceToken, claims: ofDevice},
		{name: "a policy's", token: policyToken, claims: ofPolicy},
		{name: "one in the order and the encoding of Java", token: "SharedAccessSignature sig=uj3WeApr5hD8ZciHFYtYfLEFeb71ATCQ3kHmr2cCQGI%3D&se=1767225600&sr=contoso.azure-devices.net/devices/dev-1", claims: ofDevice},

		{"no word in front", strings.TrimPrefix(deviceToken, "SharedAccessSignature "), ofDevice, doctor.TokenForm, doctor.Failed, "", "put the word SharedAccessSignature"},
		{"the word in lower case", strings.ToLower(deviceToken[:21]) + deviceToken[21:], ofDevice, doctor.TokenForm, doctor.Failed, "", "write the first word"},
		{"a connection string", "HostName=h;DeviceId=d;SharedAccessKey=k", ofDevice, doctor.TokenForm, doctor.Failed, "", "this is a connection string"},
		{"a member of one", "SharedAccessSignature=" + deviceToken, ofDevice, doctor.TokenForm, doctor.Failed, "", "what follows the first"},
		{"a token of Entra ID", "Bearer eyJ", ofDevice, doctor.TokenForm, doctor.Failed, "", "Entra ID"},
		{"nothing", "", ofDevice, doctor.TokenForm, doctor.Failed, "", "no text at all"},
		{"one that the shell cut", deviceToken[:strings.Index(deviceToken, "&")], ofDevice, doctor.TokenForm, doctor.Failed, "token has no sig", "put quotes around it"},
		{"one broken over lines", strings.Replace(deviceToken, "&se", "&\nse", 1), ofDevice, doctor.TokenForm, doctor.Failed, "", "broken over lines"},
		{"quotes", "'" + deviceToken + "'", ofDevice, doctor.TokenForm, doctor.Failed, "", "take the quotes off"},
		{"a signature encoded twice", strings.Replace(deviceToken, "%3D", "%253D", 1), ofDevice, doctor.TokenForm, doctor.Failed, "sig is not base64", "percent-encoded twice"},
		{"a signature in the alphabet of URLs", strings.NewReplacer("%2F", "_", "%2B", "-").Replace(policyToken), ofPolicy, doctor.TokenForm, doctor.Failed, "", "base64 for URLs"},
		{"a signature that is cut", strings.Replace(deviceToken, "SMI%3D", "", 1), ofDevice, doctor.TokenForm, doctor.Failed, "", "was sig cut off"},
		{"a bare plus", strings.Replace(policyToken, "%2B", "+", 1), ofPolicy, doctor.TokenForm, doctor.Warning, "bare +", "%2B"},
		{"a bare slash", strings.Replace(policyToken, "%2F", "/", 2), ofPolicy, doctor.TokenForm, doctor.Warning, "not percent-encoded", "%2F"},

		{"another hub", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Audience = "fabrikam.azure-devices.net/devices/dev-1" }), doctor.TokenResource, doctor.Failed, "for another hub", "sign for fabrikam"},
		{"another device", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Audience = "contoso.azure-devices.net/devices/dev-2" }), doctor.TokenResource, doctor.Failed, "another device or module", ""},
		{"an id in another case", sign(strings.Replace(sr, "dev-1", "Dev-1", 1), se, ""), ofDevice, doctor.TokenResource, doctor.Failed, "case-sensitive", ""},
		{"an id in lower case", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Audience = "contoso.azure-devices.net/devices/Dev-1" }), doctor.TokenResource, doctor.Warning, "stands for", "sign for contoso.azure-devices.net/devices/Dev-1"},
		{"a resource without devices", sign("contoso.azure-devices.net%2Fdev-1", se, ""), ofDevice, doctor.TokenResource, doctor.Warning, "stands for", "sign for"},
		{"a device's token for a service", sign(sr, se, "&skn=service"), service, doctor.TokenResource, doctor.Failed, "a device's token", "policy such as service"},
		{"a scheme", sign("https%3A%2F%2Fcontoso.azure-devices.net%2Fdevices%2Fdev-1", se, ""), ofDevice, doctor.TokenResource, doctor.Failed, "does not cover", "leave out the scheme"},
		{"a resource encoded twice", sign(strings.ReplaceAll(sr, "%", "%25"), se, ""), ofDevice, doctor.TokenResource, doctor.Warning, "percent-encoded twice", "encode sr once"},
		{"a slash at the end", sign(sr+"%2F", se, ""), ofDevice, doctor.TokenResource, doctor.Failed, "ends with a slash", ""},
		{"less than is needed", sign(sr+"%2Fmessages", se, ""), ofDevice, doctor.TokenResource, doctor.Failed, "it is for less", ""},
		{"a host in upper case", sign(strings.Replace(sr, "contoso", "Contoso", 1), se, ""), ofDevice, doctor.TokenResource, doctor.Warning, "upper case", "lower case"},

		{"another policy's name", strings.Replace(policyToken, "skn=device", "skn=service", 1), ofPolicy, doctor.TokenPolicy, doctor.Failed, `it names policy "service", and the key is that of policy "device"`, "skn=device"},
		{"no policy's name", strings.Replace(policyToken, "&skn=device", "", 1), ofPolicy, doctor.TokenPolicy, doctor.Failed, "no skn", "add skn=device"},
		{"a policy's name with a device's key", deviceToken + "&skn=device", ofDevice, doctor.TokenPolicy, doctor.Failed, `checked with the key of device "dev-1"`, "leave out skn"},

		{"one that has ended", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Now = c.Now.Add(2 * time.Hour) }), doctor.TokenExpiry, doctor.Failed, "2026-01-01T00:00:00Z, 1h0m0s ago", "sign a new one"},
		{"one that has just ended", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Now = c.Now.Add(time.Hour + time.Minute) }), doctor.TokenExpiry, doctor.Warning, "1m0s ago; hubs allow", ""},
		{"a life instead of an end", sign(sr, "3600", ""), ofDevice, doctor.TokenExpiry, doctor.Failed, "long ago", "seconds since 1970"},
		{"milliseconds", sign(sr, se+"000", ""), ofDevice, doctor.TokenExpiry, doctor.Warning, "year 9999", "milliseconds"},

		{"another key", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Keys = []sas.Key{policyKey} }), doctor.TokenSignature, doctor.Failed, "not made with the key of device", "renewed"},
		{"a key that was not decoded", forge(sr, sr+"\n"+se, se, "", []byte(deviceKey)), ofDevice, doctor.TokenSignature, doctor.Failed, "the text of the key", "decode the key"},
		{"signed before it was encoded", forge(sr, "contoso.azure-devices.net/devices/dev-1\n"+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "before it was percent-encoded", "exactly as the token has it"},
		{"signed encoded and sent bare", forge("contoso.azure-devices.net/devices/dev-1", sr+"\n"+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "and the token has it bare", ""},
		{"signed in lower case", forge(strings.Replace(sr, "contoso", "Contoso", 1), strings.ToLower(sr)+"\n"+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "sr in lower case", ""},
		{"signed with other digits", forge(sr, strings.ReplaceAll(sr, "%2F", "%2f")+"\n"+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "hexadecimal digits in lower case", ""},
		{"no line feed", forge(sr, sr+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "without the line feed", "a line feed"},
		{"a line feed that was not one", forge(sr, sr+`\n`+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "backslash", ""},
		{"a carriage return", forge(sr, sr+"\r\n"+se, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "carriage return", ""},
		{"one line feed too many", forge(sr, sr+"\n"+se+"\n", se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "at the end", ""},
		{"the wrong order", forge(sr, se+"\n"+sr, se, "", secret), ofDevice, doctor.TokenSignature, doctor.Failed, "se before sr", ""},
		{"no key to check with", deviceToken, with(ofDevice, func(c *doctor.Claims) { c.Keys = nil }), doctor.TokenSignature, doctor.Skipped, "no key", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := false
			for _, c := range doctor.ExamineToken(tt.token, tt.claims) {
				switch {
				case c.Name == tt.check:
					found = true
					if c.Verdict != tt.verdict || !strings.Contains(c.Detail, tt.detail) || !strings.Contains(c.Remedy, tt.remedy) {
						t.Errorf("%s is %s: %q, %q; want %s: %q, %q", c.Name, c.Verdict, c.Detail, c.Remedy, tt.verdict, tt.detail, tt.remedy)
					}
				case c.Verdict == doctor.Failed && (tt.check == "" || tt.verdict == doctor.Warning):
					t.Errorf("%s fails: %q", c.Name, c.Detail)
				}
			}
			if !found && tt.check != "" {
				t.Errorf("there is no check %s", tt.check)
			}
		})
	}
}

// FuzzExamineToken: whatever the text is, the signature in it is not shown, and
// what is accepted is what package sas accepts.
func FuzzExamineToken(f *testing.F) {
	f.Add(deviceToken)
	f.Add(policyToken)
	f.Add("SharedAccessSignature sr=%&sig=%25&se=99999999999999999999&skn=\x00")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := sas.ParseToken(text)
		for _, claims := range []doctor.Claims{ofDevice, ofPolicy, {AnyOwner: true, Now: tokenTime}} {
			checks := doctor.ExamineToken(text, claims)
			if err != nil && (len(checks) != 1 || checks[0].Verdict != doctor.Failed) {
				t.Fatalf("ExamineToken(%q) = %v, want one failure", text, checks)
			}
			for _, c := range checks {
				if strings.Contains(c.Detail+c.Remedy, "pO4BCc2TyIeahEuortMJ2i0k3lrfXJseIYRXuP52SMI") {
					t.Fatalf("%s shows the signature", c.Name)
				}
				if strings.ContainsAny(c.Detail+c.Remedy, "\x00\x1b\n\r") {
					t.Fatalf("%s has a control character: %q", c.Name, c.Detail)
				}
				if c.Name == doctor.TokenResource && err == nil && claims.Audience != "" && token.Covers(claims.Audience) != (c.Verdict != doctor.Failed) {
					t.Fatalf("%s is %s for %q", c.Name, c.Verdict, text)
				}
				if c.Name == doctor.TokenSignature && err == nil && len(claims.Keys) > 0 && token.SignedBy(claims.Keys[0]) != (c.Verdict == doctor.OK) {
					t.Fatalf("%s is %s for %q", c.Name, c.Verdict, text)
				}
			}
		}
	})
}
