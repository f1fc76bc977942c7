package mqttdevice

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

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
