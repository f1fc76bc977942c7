package hubrest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/mqttdevice"
	"github.com/iotdm/iotdm/sas"
)

// sendTelemetry sends a message as a device that connects for it.
func sendTelemetry(t *testing.T, h *hubtest.Hub, device, text string) {
	t.Helper()
	d, err := mqttdevice.New(mqttdevice.Options{ConnectionString: h.Device(device), Addr: h.MQTTSAddr, TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), mqttdevice.Message{Payload: []byte(text)}); err != nil {
		t.Fatal(err)
	}
}

func TestEventsOfARealHub(t *testing.T) {
	h := hubtest.New(t)
	c := newHubClient(t, h, "service")
	sendTelemetry(t, h, "dev1", "one")
	sendTelemetry(t, h, "dev2", "two\nlines")
	payloads := func(q hubrest.EventQuery) (list []string) {
		t.Helper()
		q.Sources = []hubrest.EventSource{hubrest.SourceTelemetry}
		err := c.Events(t.Context(), q, nil, func(e json.RawMessage) error {
			list = append(list, gjson.GetBytes(e, "event.origin").String()+" "+gjson.GetBytes(e, "event.payload").String())
			return nil
		})
		if err != nil {
			t.Errorf("Events(%+v): %v", q, err)
		}
		return list
	}
	for _, tt := range []struct {
		name  string
		query hubrest.EventQuery
		want  []string
	}{
		{"all", hubrest.EventQuery{}, []string{"dev1 one", "dev2 two\nlines"}},
		{"of one device", hubrest.EventQuery{Device: "dev2"}, []string{"dev2 two\nlines"}},
		{"of the last hour", hubrest.EventQuery{Since: time.Now().Add(-time.Hour)}, []string{"dev1 one", "dev2 two\nlines"}},
		{"of the next hour", hubrest.EventQuery{Since: time.Now().Add(time.Hour)}, nil},
		{"from now on", hubrest.EventQuery{Latest: true}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, payloads(tt.query)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("those that come", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun, seen, ended := make(chan bool), make(chan string), make(chan error)
		go func() {
			q := hubrest.EventQuery{Latest: true, Follow: true, Sources: []hubrest.EventSource{hubrest.SourceTelemetry}}
			ended <- c.Events(ctx, q, func() { close(begun) }, func(e json.RawMessage) error {
				seen <- gjson.GetBytes(e, "event.payload").String()
				return nil
			})
		}()
		<-begun
		sendTelemetry(t, h, "dev1", "three")
		if got := <-seen; got != "three" {
			t.Errorf("event %q, want three", got)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Events returned %v, want %v", err, context.Canceled)
		}
	})
	t.Run("a caller who has had enough", func(t *testing.T) {
		enough := errors.New("enough")
		if err := c.Events(t.Context(), hubrest.EventQuery{}, nil, func(json.RawMessage) error { return enough }); err != enough {
			t.Errorf("Events returned %v, want %v", err, enough)
		}
	})
	t.Run("without the right", func(t *testing.T) {
		err := newHubClient(t, h, "registryRead").Events(t.Context(), hubrest.EventQuery{}, nil, nil)
		if !errors.Is(err, hubrest.ErrUnauthorized) {
			t.Errorf("Events returned %v, want %v", err, hubrest.ErrUnauthorized)
		}
	})
}

func TestEventsThatAreLostAreTold(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"event":1}` + "\n" + `{"damaged":{"offset":"17","bytes":30}}` + "\n" + `{"event":2}` + "\n"))
	}))
	defer server.Close()
	c, err := hubrest.New(hubrest.Options{
		ConnectionString: sas.ConnectionString{HostName: "example.com", SharedAccessKeyName: "p", SharedAccessKey: sas.NewKey()},
		Addr:             server.Listener.Addr().String(),
		TLS:              server.Client().Transport.(*http.Transport).TLSClientConfig,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, listens := range []bool{true, false} {
		var got []string
		q := hubrest.EventQuery{}
		want := []string{`{"event":1}`, `{"event":2}`}
		if listens {
			q.Damaged = func(d hubrest.EventDamage) { got = append(got, fmt.Sprint(d.Offset, " ", d.Bytes)) }
			want = []string{`{"event":1}`, "17 30", `{"event":2}`}
		}
		if err := c.Events(t.Context(), q, nil, func(e json.RawMessage) error { got = append(got, string(e)); return nil }); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("a caller that listens (%v) hears (-want +got):\n%s", listens, diff)
		}
	}
}

func TestEventsOfAHubThatMisbehaves(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("{}\n<html>\n")) }, "no JSON"},
		{"a line without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte("{}\n" + strings.Repeat("x", 5<<20)))
		}, "too long"},
		{"a stream that breaks", func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte("{}\n"))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewTLSServer(tt.answer)
			defer server.Close()
			c, err := hubrest.New(hubrest.Options{
				ConnectionString: sas.ConnectionString{HostName: "example.com", SharedAccessKeyName: "p", SharedAccessKey: sas.NewKey()},
				Addr:             server.Listener.Addr().String(),
				TLS:              server.Client().Transport.(*http.Transport).TLSClientConfig,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.Events(t.Context(), hubrest.EventQuery{}, nil, func(json.RawMessage) error { return nil })
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Events returned %v, want %q in it", err, tt.want)
			}
		})
	}
}
