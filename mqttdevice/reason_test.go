package mqttdevice_test

import (
	"errors"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// given makes a connection string whose token cannot be replaced.
func given(t *testing.T, conn sas.ConnectionString, expiry time.Time) sas.ConnectionString {
	t.Helper()
	token, err := sas.Sign(conn.Audience(), "", conn.SharedAccessKey, expiry)
	if err != nil {
		t.Fatal(err)
	}
	conn.SharedAccessKey, conn.SharedAccessSignature = "", sas.Secret(token)
	return conn
}

func TestTokenThatCannotBeReplaced(t *testing.T) {
	h := hubtest.New(t)
	over, _ := start(t, h, given(t, h.Device("dev-1"), time.Now().Add(-time.Hour)), mqttdevice.Options{})
	if err := over.Connect(t.Context()); !errors.Is(err, mqttdevice.ErrTokenExpired) || !errors.Is(err, mqttdevice.ErrUnauthorized) {
		t.Errorf("Connect returned %v, want %v", err, mqttdevice.ErrTokenExpired)
	}

	// The hub forgives clocks a few minutes.
	c, events := start(t, h, given(t, h.Device("dev-1"), time.Now().Add(time.Second-sas.Skew)), mqttdevice.Options{})
	connect(t, c)
	if got := await(t, events, mqttdevice.Disconnected); !errors.Is(got.Reason, mqttdevice.ErrTokenExpired) {
		t.Errorf("event %+v, want %v", got, mqttdevice.ErrTokenExpired)
	}
	if got := await(t, events, mqttdevice.Disconnected); !errors.Is(got.Reason, mqttdevice.ErrTokenExpired) || got.Attempts != 1 || got.Retry == 0 {
		t.Errorf("event %+v, want %v and another attempt later", got, mqttdevice.ErrTokenExpired)
	}
}

func TestTwoProgramsAreTheSameDevice(t *testing.T) {
	h := hubtest.New(t)
	conn := h.Device("dev-1")
	first, events := start(t, h, conn, mqttdevice.Options{})
	connect(t, first)
	second, _ := start(t, h, conn, mqttdevice.Options{})
	connect(t, second)
	if got := await(t, events, mqttdevice.Disconnected); got.Reason != mqttdevice.ErrHubClosed {
		t.Errorf("event %+v, want %v", got, mqttdevice.ErrHubClosed)
	}
	if got := await(t, events, mqttdevice.Disconnected); got.Reason != mqttdevice.ErrTakenOver {
		t.Errorf("event %+v, want %v", got, mqttdevice.ErrTakenOver)
	}
}

func TestCertificateThatIsOver(t *testing.T) {
	h := hubtest.New(t)
	conn, config := certified(t, h, time.Now().Add(-time.Minute))
	for _, transport := range transports {
		c, err := mqttdevice.New(mqttdevice.Options{ConnectionString: conn, Transport: transport, Addr: addrOf(h, transport), TLS: config})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Connect(t.Context()); !errors.Is(err, mqttdevice.ErrCertificateExpired) {
			t.Errorf("%v: Connect returned %v, want %v", transport, err, mqttdevice.ErrCertificateExpired)
		}
	}
}
