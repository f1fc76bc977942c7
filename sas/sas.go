// Package sas holds what IoT Hub calls security tokens and what they are made from: connection
// strings, shared access keys, and shared access signatures.
//
// A client parses its connection string with [ParseConnectionString], signs a token for
// [ConnectionString.Audience] with [Sign], and signs a new one at [RenewAt]. A hub parses what it
// receives with [ParseToken] and then asks the token three questions: was it signed by this key
// ([Token.SignedBy]), does it cover this resource ([Token.Covers]), is it over ([Token.Expired]).
//
// Nothing here does I/O or reads the clock, and every function may be called concurrently. Keys
// and ready-made tokens have types that print and log as "***".
//
// The format is the one of the IoT Hub article "Control access to IoT Hub with shared access
// signatures"; where the SDKs of different languages differ, all of them are accepted.
package sas

import (
	"encoding/base64"
	"strconv"
	"time"
)

// Skew is how long after its expiry a token is still accepted, so that a device whose clock is a
// little off can connect. The error guide of IoT Hub names the same five minutes.
const Skew = 5 * time.Minute

// scheme is the word a token starts with.
const scheme = "SharedAccessSignature"

// Sign returns a token that grants audience until expiry, signed with key:
//
//	SharedAccessSignature sr=...&sig=...&se=...[&skn=...]
//
// The audience is unencoded, such as [ConnectionString.Audience] returns it. The policy names the
// shared access policy that key belongs to; it is empty for the key of a device or module. The
// expiry is cut to whole seconds. An error means that key is not one, see [Key.Validate].
func Sign(audience, policy string, key Key, expiry time.Time) (string, error) {
	secret, err := key.decode()
	if err != nil {
		return "", err
	}
	sr := escape(audience)
	se := strconv.FormatInt(expiry.Unix(), 10)
	sum := signature(secret, sr, se)
	token := scheme + " sr=" + sr + "&sig=" + escape(base64.StdEncoding.EncodeToString(sum[:])) + "&se=" + se
	if policy != "" {
		token += "&skn=" + escape(policy)
	}
	return token, nil
}

// RenewAt returns when a client should replace a token it got at issued and that ends at expiry:
// after 85 % of its life, earlier where that leaves less than two minutes, but never before 80 %
// of it. Renewing over MQTT means connecting again, so it should be neither late nor frequent.
func RenewAt(issued, expiry time.Time) time.Time {
	life := expiry.Sub(issued)
	if life <= 0 {
		return issued
	}
	at := min(life/20*17, life-2*time.Minute)
	return issued.Add(max(at, life/5*4))
}
