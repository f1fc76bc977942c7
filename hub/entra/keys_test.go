package entra

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func rsaKeySet(t *testing.T, bits int) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"k","n":%q,"e":"AQAB"}]}`, base64.RawURLEncoding.EncodeToString(key.N.Bytes()))
}

func TestKeySetIsReadFromItsURL(t *testing.T) {
	status, body := 200, rsaKeySet(t, 2048)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer server.Close()
	now := time.Unix(0, 0)
	s := newKeySet(server.URL, func() time.Time { return now })
	s.http.Transport = server.Client().Transport
	if _, err := s.key(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	// A key that the issuer withdrew is gone within a day.
	body = strings.Replace(body, `"k"`, `"other"`, 1)
	now = now.Add(keySetLife)
	if _, err := s.key(t.Context(), "k"); err == nil {
		t.Error("a withdrawn key is still accepted")
	}
	// An issuer that does not answer keeps the keys that are known.
	status = 500
	now = now.Add(keySetLife)
	if _, err := s.key(t.Context(), "other"); err != nil {
		t.Error(err)
	}
}

func TestKeySetsThatAreRefused(t *testing.T) {
	for name, body := range map[string]string{
		"not JSON":               `{`,
		"empty":                  `{"keys":[]}`,
		"no RSA key":             `{"keys":[{"kty":"EC","kid":"k"}]}`,
		"for encryption":         strings.Replace(rsaKeySet(t, 2048), `"kid"`, `"use":"enc","kid"`, 1),
		"a short key":            rsaKeySet(t, 1024),
		"a key that is too long": `{"keys":[{"kty":"RSA","kid":"k","e":"AQAB","n":"` + strings.Repeat("_", 1400) + `"}]}`,
		"thousands of keys":      strings.Replace(rsaKeySet(t, 2048), `[`, `[`+strings.Repeat("{},", maxKeys), 1),
		"an odd modulus":         `{"keys":[{"kty":"RSA","kid":"k","n":"!","e":"AQAB"}]}`,
		"no exponent":            `{"keys":[{"kty":"RSA","kid":"k","n":"AQAB"}]}`,
		"an exponent of 1":       strings.Replace(rsaKeySet(t, 2048), "AQAB", "AQ", 1),
		"an even exponent":       strings.Replace(rsaKeySet(t, 2048), "AQAB", "AQAA", 1),
		"a gigantic exponent":    `{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAAAAAAAAAB"}]}`,
	} {
		if _, err := parseKeySet([]byte(body)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := newKeySet("http://127.0.0.1:1/keys", time.Now).key(t.Context(), "k"); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("plain http: %v", err)
	}
}
