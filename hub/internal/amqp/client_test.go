package amqp_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/iotdm/iotdm/sas"
)

// signText signs as the clients of Event Hubs do: with the text of the key.
func signText(t testing.TB, resource, policy string, key sas.Key, expiry time.Time) string {
	t.Helper()
	sr, se := url.QueryEscape(resource), strconv.FormatInt(expiry.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(string(key)))
	mac.Write([]byte(sr + "\n" + se))
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se + "&skn=" + policy
}

func dialTCP(t testing.TB, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}
