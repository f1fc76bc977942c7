package mqttdevice

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

func TestPlainReasons(t *testing.T) {
	op := func(err error) error { return &net.OpError{Op: "read", Net: "tcp", Err: err} }
	tests := []struct {
		name string
		err  error
		want error
		text string // all of it
	}{
		{"end of stream", io.EOF, ErrHubClosed, ErrHubClosed.Error()},
		{"end within a packet", io.ErrUnexpectedEOF, ErrHubClosed, ErrHubClosed.Error()},
		{"closed by paho's keep-alive", op(net.ErrClosed), ErrNoPong, ErrNoPong.Error()},
		{"reset", op(syscall.ECONNRESET), ErrNetwork, "the network connection broke: connection reset by peer"},
		{"the hub does not like the certificate", &net.OpError{Op: "remote error", Err: tls.AlertError(45)}, ErrUnauthorized,
			ErrUnauthorized.Error() + " (tls: expired certificate)"},
		{"the hub does not like the TLS version", &net.OpError{Op: "remote error", Err: tls.AlertError(70)}, ErrNetwork,
			"the network connection broke: tls: protocol version not supported"},
		{"busy", refusal(packets.ErrRefusedServerUnavailable), ErrBusy, ErrBusy.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := plainReason(tt.err)
			if !errors.Is(got, tt.want) || got.Error() != tt.text {
				t.Errorf("plainReason(%v) is %v, want %v and %q", tt.err, got, tt.want, tt.text)
			}
		})
	}
}

func TestEvictedByAnotherProgram(t *testing.T) {
	type closed struct {
		reason error
		lasted time.Duration
	}
	hub := func(lasted time.Duration) closed { return closed{ErrHubClosed, lasted} }
	tests := []struct {
		name  string
		after []closed
		want  error // of the last
	}{
		{"once", []closed{hub(time.Second)}, ErrHubClosed},
		{"twice, soon", []closed{hub(time.Second), hub(2 * time.Second)}, ErrTakenOver},
		{"three nodes are restarted within a minute", []closed{hub(time.Hour), hub(10 * time.Second), hub(12 * time.Second), hub(9 * time.Second)}, ErrHubClosed},
		{"the other one comes later, since it knows", []closed{hub(time.Second), hub(time.Second), hub(30 * time.Second)}, ErrTakenOver},
		{"the other one is gone", []closed{hub(time.Second), hub(time.Second), hub(2 * time.Minute)}, ErrHubClosed},
		{"the network broke", []closed{hub(time.Second), hub(time.Second), {ErrNetwork, time.Second}}, ErrNetwork},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := new(Client)
			var got error
			for _, one := range tt.after {
				got = c.evicted(one.reason, one.lasted)
			}
			if got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestFailuresAreForgotten(t *testing.T) {
	tests := []struct {
		lasted    time.Duration
		evictions int
		want      int // failures, after 5
	}{
		{time.Second, 0, 5},
		{10 * time.Second, 0, 1}, // as when nodes are restarted one after the other
		{10 * time.Second, 2, 5}, // another program is the same device
		{2 * time.Minute, 2, 0},
	}
	for _, tt := range tests {
		l := link{failures: 5, evictions: tt.evictions}
		if l.outlived(tt.lasted); l.failures != tt.want {
			t.Errorf("%d failures count after a connection of %v, with %d evictions; want %d", l.failures, tt.lasted, tt.evictions, tt.want)
		}
	}
}
