package sas

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// The registry accepts keys of 16 to 64 bytes.
const (
	minKey = 16
	maxKey = 64
)

// redacted is what a secret prints as.
const redacted = "***"

// A Key is a shared access key as base64 text. However it is printed or logged it shows as "***".
// Encoded as JSON it is its real text, because the answers of the identity registry carry keys; so
// never log a struct that holds one with a JSON handler. string(k) is the real text too.
type Key string

// NewKey returns a random key of 32 bytes, the size IoT Hub generates.
func NewKey() Key {
	var b [32]byte
	rand.Read(b[:]) // never fails, as crypto/rand documents
	return Key(base64.StdEncoding.EncodeToString(b[:]))
}

// Validate returns an error, which does not show the key, unless k is base64 of 16 to 64 bytes.
func (k Key) Validate() error {
	_, err := k.decode()
	return err
}

// String returns "***".
func (Key) String() string { return redacted }

// Format prints "***" for every verb.
func (Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue is "***".
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// A Secret is a ready-made token in a connection string. It prints, logs and encodes as a [Key] does.
type Secret string

// String returns "***".
func (Secret) String() string { return redacted }

// Format prints "***" for every verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue is "***".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

var (
	errKeyText = errors.New("not base64")
	errKeySize = fmt.Errorf("not %d to %d bytes of base64", minKey, maxKey)
)

// decode returns the bytes of k.
func (k Key) decode() ([]byte, error) {
	// The decoder skips line ends; a key that has one was cut out of a file and is not the key.
	if strings.ContainsAny(string(k), "\r\n") {
		return nil, errKeyText
	}
	b, err := base64.StdEncoding.DecodeString(string(k))
	switch {
	case err != nil:
		return nil, errKeyText
	case len(b) < minKey || len(b) > maxKey:
		return nil, errKeySize
	}
	return b, nil
}

// signature returns the HMAC that covers a token: over sr and se as written in it.
func signature(secret []byte, sr, se string) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(sr + "\n" + se))
	mac.Sum(sum[:0])
	return sum
}
