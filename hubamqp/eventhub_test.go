package hubamqp

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

func TestRedirected(t *testing.T) {
	tests := []struct {
		name string
		info map[string]any
		want string // host and name; empty: refused
	}{
		{"as Azure does", map[string]any{"hostname": "ihsu.servicebus.windows.net", "network-host": "ihsu.servicebus.windows.net", "port": int32(5671), "address": "amqps://ihsu.servicebus.windows.net:5671/iothub-ehub-1/"}, "ihsu.servicebus.windows.net iothub-ehub-1"},
		{"to a path", map[string]any{"address": "amqps://ihsu.servicebus.windows.net:5671/iothub-ehub-1/$management"}, "ihsu.servicebus.windows.net iothub-ehub-1"},
		{"another port", map[string]any{"hostname": "hub.test", "port": int32(15671), "address": "amqps://hub.test:15671/events/"}, "hub.test:15671 events"},
		{"no address", map[string]any{"hostname": "hub.test"}, ""},
		{"no name", map[string]any{"hostname": "hub.test", "address": "amqps://hub.test:5671//"}, ""},
		{"of other types", map[string]any{"hostname": 1, "address": []byte("amqps://hub.test/events/")}, ""},
		{"nothing", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := redirected(tt.info)
			got := ""
			if err == nil {
				got = e.Host + " " + e.EntityPath
			}
			if got != tt.want {
				t.Errorf("redirected(%v) is %q (%v), want %q", tt.info, got, err, tt.want)
			}
		})
	}
}

// Wherever a hub redirects to, there is a host and a name, or an error.
func FuzzRedirected(f *testing.F) {
	f.Add("hub.test", "amqps://hub.test:5671/events/", int32(5671))
	f.Add("", "://[::1]/a/b", int32(-1))
	f.Add(":0", ":///0", int32(0))
	f.Fuzz(func(t *testing.T, hostname, address string, port int32) {
		e, err := redirected(map[string]any{"hostname": hostname, "address": address, "port": port})
		if err == nil && (e.Host == "" || e.EntityPath == "" || strings.Contains(e.EntityPath, "/")) {
			t.Errorf("host %q, name %q", e.Host, e.EntityPath)
		}
	})
}

func TestWhereTransportsLead(t *testing.T) {
	hub := Options{ConnectionString: sas.ConnectionString{HostName: "Hub.test", SharedAccessSignature: "x"}}
	at := func(change func(*Options)) Options { o := hub; change(&o); return o }
	tests := []struct {
		name string
		opt  Options
		want []string
	}{
		{"Auto", hub, []string{"Hub.test:5671", "Hub.test:443 wss://Hub.test/$iothub/websocket?iothub-no-client-cert=true"}},
		{"TCP", at(func(o *Options) { o.Transport = TCP }), []string{"Hub.test:5671"}},
		{"WebSocket", at(func(o *Options) { o.Transport = WebSocket }), []string{"Hub.test:443 wss://Hub.test/$iothub/websocket?iothub-no-client-cert=true"}},
		{"a port in the name is that of HTTPS", at(func(o *Options) { o.ConnectionString.HostName = "hub.test:8443" }), []string{"hub.test:5671", "hub.test:8443 wss://hub.test:8443/$iothub/websocket?iothub-no-client-cert=true"}},
		{"addresses", at(func(o *Options) { o.Addr, o.WebSocketAddr = "[::1]:1", "[::1]:2" }), []string{"[::1]:1", "[::1]:2 wss://Hub.test/$iothub/websocket?iothub-no-client-cert=true"}},
	}
	routes := func(c *Client, path string) []string {
		var got []string
		for _, r := range c.dialer(path).Routes {
			s := r.Addr
			if r.WebSocket != nil {
				s += " " + r.WebSocket.String()
			}
			if name, _ := splitPort(c.opt.ConnectionString.HostName); r.TLS.ServerName != name {
				t.Errorf("the server's name is %q", r.TLS.ServerName)
			}
			got = append(got, s)
		}
		return got
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(tt.opt)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, routes(c, hubPath)); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
		})
	}
}

// The events of a hub are where it is, unless it names another host.
func TestWhereEventsAre(t *testing.T) {
	c, err := New(Options{ConnectionString: sas.ConnectionString{HostName: "hub.test", SharedAccessSignature: "x"}, Addr: "[::1]:1", WebSocketAddr: "[::1]:2"})
	if err != nil {
		t.Fatal(err)
	}
	alone, err := New(Options{EventHub: sas.EventHubConnectionString{Host: "hub.test", EntityPath: "e"}, Addr: "[::1]:1", WebSocketAddr: "[::1]:2"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		c        *Client
		host     string
		emulator bool
		want     []string
	}{
		{"the hub", c, "HUB.test", false, []string{"[::1]:1", "[::1]:2"}},
		{"another host", c, "ihsu.test", false, []string{"ihsu.test:5671", "ihsu.test:443"}},
		{"another port", c, "ihsu.test:15671", false, []string{"ihsu.test:15671", "ihsu.test:443"}},
		{"alone", alone, "hub.test", false, []string{"[::1]:1", "[::1]:2"}},
		{"an emulator", alone, "localhost", true, []string{"localhost:5672"}},
		{"an emulator at a port", alone, "localhost:7", true, []string{"localhost:7"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, r := range tt.c.eventHubWays(endpoint{EventHubConnectionString: sas.EventHubConnectionString{Host: tt.host, EntityPath: "e", UseDevelopmentEmulator: tt.emulator}}).Routes {
				got = append(got, r.Addr)
				if r.WebSocket != nil && r.WebSocket.Path != eventHubPath {
					t.Errorf("path %q", r.WebSocket.Path)
				}
				if (r.TLS == nil) != tt.emulator {
					t.Error("TLS is the wrong way round")
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
		})
	}
}

// Event Hubs' clients sign with the text of the key, and IoT Hub's with what it stands for.
func TestTokens(t *testing.T) {
	const key = "AAAAAAAAAAAAAAAAAAAAAA=="
	now := time.Unix(1_800_000_000, 0)
	c, err := New(Options{ConnectionString: sas.ConnectionString{HostName: "Hub.test", SharedAccessKeyName: "service", SharedAccessKey: key}, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	var e endpoint
	e.Host, e.EntityPath, e.SharedAccessKeyName, e.SharedAccessKey = "ihsu.test", "events", "service", key
	forHub, err := c.hubToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	forEvents, err := c.eventHubToken(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		token    token
		resource string
		signed   func(sas.Token) bool
	}{
		{forHub, "hub.test", func(t sas.Token) bool { return t.SignedBy(key) && !t.SignedByText(key) }},
		{forEvents, "sb://ihsu.test/events", func(t sas.Token) bool { return t.SignedByText(key) && !t.SignedBy(key) }},
	} {
		parsed, err := sas.ParseToken(tt.token.text)
		if err != nil {
			t.Fatal(err)
		}
		resource, _ := url.QueryUnescape(parsed.Resource)
		if resource != tt.resource || parsed.Policy != "service" || !parsed.Expiry.Equal(now.Add(time.Hour)) || !tt.signed(parsed) {
			t.Errorf("token %v for %s is not as it should be", parsed, tt.resource)
		}
		if want := now.Add(51 * time.Minute); tt.token.kind != sasToken || !tt.token.renewAt.Equal(want) {
			t.Errorf("token of kind %s is renewed at %v, want %v", tt.token.kind, tt.token.renewAt, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	const key = "AAAAAAAAAAAAAAAAAAAAAA=="
	for want, opt := range map[string]Options{
		"HostName is missing":            {},
		"it is that of device":           {ConnectionString: sas.ConnectionString{HostName: "h", DeviceID: "d", SharedAccessKey: key}},
		"SharedAccessKeyName is missing": {ConnectionString: sas.ConnectionString{HostName: "h", SharedAccessKey: key}},
		"SharedAccessKey: not base64":    {ConnectionString: sas.ConnectionString{HostName: "h", SharedAccessKeyName: "p", SharedAccessKey: "x"}},
		"there is no transport 7":        {ConnectionString: sas.ConnectionString{HostName: "h"}, Transport: 7},
	} {
		if _, err := New(opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New returned %v, want %q", err, want)
		}
	}
}
