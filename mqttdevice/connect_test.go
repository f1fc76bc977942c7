package mqttdevice

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

const readyToken = "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev-1&sig=pO4BCc2TyIeahEuortMJ2i0k3lrfXJseIYRXuP52SMI%3D&se=1767225600"

func TestConnectSendsWhatIoTHubWants(t *testing.T) {
	type sent struct {
		Protocol     string
		Level        byte
		ClientID     string
		UserName     string
		CleanSession bool
		KeepAlive    uint16
		Filters      []string
		QoS          []byte
	}
	tests := []struct {
		name     string
		conn     string
		want     sent
		audience string // of the token; empty for no token of ours
		policy   string
		password string // when it is not a token of ours
	}{
		{
			name:     "a device signs with its key",
			conn:     "HostName=hub.test;DeviceId=dev+1%#;SharedAccessKey=" + testKey,
			want:     sent{ClientID: "dev+1%#", UserName: "hub.test/dev+1%#/"},
			audience: "hub.test/devices/dev+1%#",
		},
		{
			name:     "a module has both ids",
			conn:     "HostName=hub.test;DeviceId=dev-1;ModuleId=mod-1;SharedAccessKey=" + testKey,
			want:     sent{ClientID: "dev-1/mod-1", UserName: "hub.test/dev-1/mod-1/"},
			audience: "hub.test/devices/dev-1/modules/mod-1",
		},
		{
			name:     "a port is no part of the user name",
			conn:     "HostName=hub.test:18883;DeviceId=dev-1;SharedAccessKey=" + testKey,
			want:     sent{ClientID: "dev-1", UserName: "hub.test/dev-1/"},
			audience: "hub.test/devices/dev-1",
		},
		{
			name:     "behind a gateway the hub keeps its name",
			conn:     "HostName=hub.test;GatewayHostName=gw.test;DeviceId=dev-1;SharedAccessKey=" + testKey,
			want:     sent{ClientID: "dev-1", UserName: "hub.test/dev-1/"},
			audience: "hub.test/devices/dev-1",
		},
		{
			name:     "a policy is named in the token",
			conn:     "HostName=hub.test;DeviceId=dev-1;SharedAccessKeyName=device;SharedAccessKey=" + testKey,
			want:     sent{ClientID: "dev-1", UserName: "hub.test/dev-1/"},
			audience: "hub.test/devices/dev-1",
			policy:   "device",
		},
		{
			name:     "a ready-made token goes as it is",
			conn:     "HostName=hub.test;DeviceId=dev-1;SharedAccessSignature=" + readyToken,
			want:     sent{ClientID: "dev-1", UserName: "hub.test/dev-1/"},
			password: readyToken,
		},
		{
			name: "with a certificate there is no password",
			conn: "HostName=hub.test;DeviceId=dev-1;x509=true",
			want: sent{ClientID: "dev-1", UserName: "hub.test/dev-1/"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := sas.ParseConnectionString(tt.conn)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				c, _ := device(t, p, Options{ConnectionString: conn})
				defer c.Close()
				go c.Connect(t.Context())
				far := <-p.conns
				connect := next[*packets.ConnectPacket](far)
				far.connack(packets.Accepted)
				subscribe := next[*packets.SubscribePacket](far)
				far.suback(subscribe, 0, 0, 0)

				user, agent, _ := strings.Cut(connect.Username, "?")
				if want := "api-version=2021-04-12&DeviceClientType=iotdm%20%28go"; !strings.HasPrefix(agent, want) {
					t.Errorf("user name has the query %q, want %q...", agent, want)
				}
				got := sent{connect.ProtocolName, connect.ProtocolVersion, connect.ClientIdentifier, user,
					connect.CleanSession, connect.Keepalive, subscribe.Topics, subscribe.Qoss}
				slices.Sort(got.Filters)
				want := tt.want
				want.Protocol, want.Level, want.KeepAlive = "MQTT", 4, 60
				want.Filters = []string{"$iothub/methods/POST/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/twin/res/#"}
				want.QoS = []byte{0, 0, 0}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("CONNECT and SUBSCRIBE (-want +got):\n%s", diff)
				}

				if tt.audience == "" {
					if got := string(connect.Password); got != tt.password {
						t.Errorf("password is %q, want %q", got, tt.password)
					}
					return
				}
				token, err := sas.ParseToken(string(connect.Password))
				if err != nil {
					t.Fatalf("password: %v", err)
				}
				if !token.SignedBy(testKey) || !token.Covers(tt.audience) || token.Policy != tt.policy {
					t.Errorf("token %v does not cover %q for policy %q", token, tt.audience, tt.policy)
				}
				if got, want := token.Expiry.Unix(), time.Now().Add(time.Hour).Unix(); got != want {
					t.Errorf("token ends at %d, want %d", got, want)
				}
			})
		})
	}
}

func TestFirstConnectionRefusedForGood(t *testing.T) {
	tests := []struct {
		code byte
		want error // nil: any
	}{
		{packets.ErrRefusedNotAuthorised, ErrUnauthorized},
		{packets.ErrRefusedBadUsernameOrPassword, ErrUnauthorized},
		{packets.ErrRefusedIDRejected, nil},
		{packets.ErrRefusedBadProtocolVersion, nil},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			p := newPeer(t)
			c, events := device(t, p, Options{})
			defer c.Close()
			go p.refuse(tt.code)
			err := c.Connect(t.Context())
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("code %d: Connect returned %v, want %v", tt.code, err, tt.want)
			}
			if got := events.await(Disconnected); !errors.Is(got.Reason, err) || got.Retry != 0 {
				t.Errorf("code %d: event %+v, want the error and no retry", tt.code, got)
			}
			if _, err := c.Twin(t.Context()); !errors.Is(err, ErrNotConnected) {
				t.Errorf("code %d: Twin returned %v, want %v", tt.code, err, ErrNotConnected)
			}

			// The user has put it right.
			go p.accept()
			if err := c.Connect(t.Context()); err != nil {
				t.Errorf("code %d: second Connect returned %v", tt.code, err)
			}
			if err := c.Connect(t.Context()); err == nil {
				t.Errorf("code %d: Connect on a connected client succeeded", tt.code)
			}
		})
	}
}

func TestFirstConnectionIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, events := device(t, p, Options{})
		defer c.Close()
		unreachable := errors.New("no route")
		attempts := 0
		c.dial = func(ctx context.Context) (net.Conn, error) {
			if attempts++; attempts == 1 {
				return nil, unreachable
			}
			return p.dial(ctx)
		}
		result := make(chan error)
		go func() { result <- c.Connect(t.Context()) }()

		if got := events.await(Disconnected); !errors.Is(got.Reason, unreachable) || got.Retry > usual.least {
			t.Errorf("first event %+v, want %v and a short retry", got, unreachable)
		}
		p.refuse(packets.ErrRefusedServerUnavailable)
		if got := events.await(Disconnected); !strings.Contains(got.Reason.Error(), "busy") {
			t.Errorf("second event %+v, want one that says the hub is busy", got)
		}
		far := <-p.conns
		next[*packets.ConnectPacket](far)
		far.Close()
		if got := events.await(Disconnected); !errors.Is(got.Reason, ErrHubClosed) {
			t.Errorf("third event %+v, want %v", got, ErrHubClosed)
		}
		next[*packets.ConnectPacket](<-p.conns) // and no answer
		began := time.Now()
		if got := events.await(Disconnected); !errors.Is(got.Reason, ErrNoAnswer) || time.Since(began) != connectTimeout {
			t.Errorf("fourth event %+v after %v, want %v after %v", got, time.Since(began), ErrNoAnswer, connectTimeout)
		}
		far = <-p.conns
		next[*packets.ConnectPacket](far)
		far.connack(packets.Accepted)
		far.suback(next[*packets.SubscribePacket](far), 0, 0x80, 0)
		if got := events.await(Disconnected); !strings.Contains(got.Reason.Error(), "subscription") {
			t.Errorf("fifth event %+v, want one about the subscription", got)
		}
		p.accept()
		if err := <-result; err != nil {
			t.Errorf("Connect returned %v", err)
		}
	})
}

func TestConnectEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := device(t, nil, Options{})
		defer c.Close()
		unreachable := errors.New("no route")
		c.dial = func(context.Context) (net.Conn, error) { return nil, unreachable }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := c.Connect(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unreachable) {
			t.Errorf("Connect returned %v, want it to name the deadline and %v", err, unreachable)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, _ := device(t, p, Options{})
		defer c.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			next[*packets.ConnectPacket](<-p.conns)
			cancel()
		}()
		if err := c.Connect(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Connect returned %v, want %v", err, context.Canceled)
		}
	})
}

func TestCertificateThatDoesNotVerify(t *testing.T) {
	cert, roots := testCertificate(t, "hub.test")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // the handshake fails, on the client's word
				conn.(*tls.Conn).Handshake()
				conn.Close()
			}()
		}
	}()
	tests := []struct {
		name string
		host string
		tls  *tls.Config
		want string
	}{
		{"no root for it", "hub.test", nil, "certificate signed by unknown authority"},
		{"another host's", "other.test", &tls.Config{RootCAs: roots}, "not other.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn := sas.ConnectionString{HostName: tt.host, DeviceID: "dev-1", SharedAccessKey: testKey}
			c, err := New(Options{ConnectionString: conn, Addr: listener.Addr().String(), TLS: tt.tls})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var verification *tls.CertificateVerificationError
			err = c.Connect(t.Context())
			if !errors.As(err, &verification) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Connect returned %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct {
		name           string
		opt            Options
		wantAddr       string
		wantServerName string
	}{
		{"the hub's name gets the port", options("hub.test", ""), "hub.test:8883", "hub.test"},
		{"a port of the name counts", options("hub.test:18883", ""), "hub.test:18883", "hub.test"},
		{"a gateway is dialled and verified", options("hub.test", "gw.test"), "gw.test:8883", "gw.test"},
		{"an IPv6 address", options("[::1]", ""), "[::1]:8883", "::1"},
		{"an IPv6 address with a port", options("[::1]:1", ""), "[::1]:1", "::1"},
		{
			"an address overrides what is dialled",
			Options{ConnectionString: sas.ConnectionString{HostName: "hub.test:1"}, Addr: "127.0.0.1:2"},
			"127.0.0.1:2", "hub.test",
		},
		{
			"a server name overrides what is verified",
			Options{ConnectionString: sas.ConnectionString{HostName: "hub.test"}, TLS: &tls.Config{ServerName: "x.test"}},
			"hub.test:8883", "x.test",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := dialAddr(tt.opt, TCP); got != tt.wantAddr {
				t.Errorf("dials %s, want %s", got, tt.wantAddr)
			}
			if got := tlsConfig(tt.opt).ServerName; got != tt.wantServerName {
				t.Errorf("verifies %s, want %s", got, tt.wantServerName)
			}
		})
	}
}

func options(host, gateway string) Options {
	return Options{ConnectionString: sas.ConnectionString{HostName: host, GatewayHostName: gateway}}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	good := sas.ConnectionString{HostName: testHub, DeviceID: "dev-1", SharedAccessKey: testKey}
	tests := []struct {
		name string
		opt  Options
		want string
	}{
		{"nothing at all", Options{}, "DeviceId"},
		{"a service's connection string", Options{ConnectionString: sas.ConnectionString{HostName: testHub, SharedAccessKeyName: "service", SharedAccessKey: testKey}}, "DeviceId"},
		{"no key", Options{ConnectionString: sas.ConnectionString{HostName: testHub, DeviceID: "dev-1"}}, "connection string"},
		{"tokens that end at once", Options{ConnectionString: good, TokenLife: time.Millisecond}, "token life"},
		{"a keep-alive the hub does not grant", Options{ConnectionString: good, KeepAlive: time.Hour}, "keep-alive"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.opt); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New returned %v, want an error about %q", err, tt.want)
			}
		})
	}
}
