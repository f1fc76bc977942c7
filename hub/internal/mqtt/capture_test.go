package mqtt_test

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// A capture is what one program with an official SDK exchanged with a
// recording hub.
type capture struct {
	Client, Flow string
	Packets      []struct {
		Conn      int
		From      string // "device" or "hub"
		Transport string // of a CONNECT: "tcp" or "websocket"
		Hex       string
	}
}

// TestCaptures has the hub answer what real clients sent, byte for byte, and
// compares its answers with those that satisfied the clients.
func TestCaptures(t *testing.T) {
	data, err := os.ReadFile("testdata/captures.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		PrimaryKey, SecondaryKey sas.Key
		Flows                    []capture
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Flows {
		t.Run(c.Client+" "+c.Flow, func(t *testing.T) {
			t.Parallel()
			h := hubtest.New(t, hubtest.WithOptions(node.Options{HostNames: []string{"myhub.azure-devices.net"}}))
			r := &replay{t: t, h: h, capture: c, keys: hub.SymmetricKey{Primary: file.PrimaryKey, Secondary: file.SecondaryKey},
				conns: map[int]*wiretest.Client{}, rids: map[string]string{}, waiting: map[string]<-chan invocation{}}
			r.run()
		})
	}
}

// A replay plays the device's part of a capture, and has the service do what
// made the recording hub send what it sent by itself.
type replay struct {
	t *testing.T
	h *hubtest.Hub
	capture
	keys hub.SymmetricKey

	id      hub.ID
	conns   map[int]*wiretest.Client
	refused []int                        // connections that the recording hub refused to see what the client does
	rids    map[string]string            // recorded request id of a direct method: ours
	waiting map[string]<-chan invocation // direct methods by our request id
	unacked []uint16
}

func (r *replay) run() {
	for i, p := range r.Packets {
		raw, err := hex.DecodeString(p.Hex)
		if err != nil {
			r.t.Fatal(err)
		}
		packet, err := packets.ReadPacket(bytes.NewReader(raw))
		if err != nil {
			r.t.Fatalf("packet %d: %v", i, err)
		}
		switch {
		case slices.Contains(r.refused, p.Conn):
		case p.From == "hub":
			r.fromHub(r.conns[p.Conn], packet)
		default:
			if connect, ok := packet.(*packets.ConnectPacket); ok {
				if r.forced(i + 1) {
					r.refused = append(r.refused, p.Conn)
					continue
				}
				r.prepare(connect)
				if r.Flow == "desired change made while away" && len(r.conns) == 1 {
					r.patch(`{"missed":7}`)
				}
				r.conns[p.Conn] = r.dial(p.Transport, connect)
			}
			r.fromDevice(r.conns[p.Conn], packet, raw)
		}
	}
}

// forced reports whether packet i is a refusal that tests the client.
func (r *replay) forced(i int) bool {
	return strings.HasPrefix(r.Packets[i].Hex, "2002") && r.Packets[i].Hex != "20020000" &&
		!slices.Contains([]string{"wrong key", "disabled identity", "unknown identity"}, r.Flow)
}

// prepare registers the identity that connects first.
func (r *replay) prepare(p *packets.ConnectPacket) {
	if r.id.Device != "" || r.Flow == "unknown identity" {
		return
	}
	r.id.Device, r.id.Module, _ = strings.Cut(p.ClientIdentifier, "/")
	spec := hub.IdentitySpec{Auth: hub.Authentication{SymmetricKey: r.keys}}
	if r.Flow == "disabled identity" {
		spec.Status = hub.StatusDisabled
	}
	if !p.PasswordFlag {
		print := wiretest.Thumbprint(deviceCertificate)
		spec.Auth = hub.Authentication{X509: hub.X509Thumbprint{Primary: &print}}
	}
	wiretest.Create(r.t, r.h.Node, hub.ID{Device: r.id.Device}, spec)
	if r.id.Module != "" {
		wiretest.Create(r.t, r.h.Node, r.id, spec)
	}
}

func (r *replay) dial(transport string, p *packets.ConnectPacket) *wiretest.Client {
	if transport == "websocket" {
		return wiretest.DialWebSocket(r.t, r.h)
	}
	config := r.h.ClientTLS()
	config.ServerName = "myhub.azure-devices.net"
	if !p.PasswordFlag {
		config.Certificates = []tls.Certificate{deviceCertificate}
	}
	return wiretest.DialTLSConfig(r.t, r.h, config)
}

func (r *replay) fromDevice(c *wiretest.Client, packet packets.ControlPacket, raw []byte) {
	p, ok := packet.(*packets.PublishPacket)
	if !ok {
		c.SendBytes(raw...)
		return
	}
	if p.Qos == 1 {
		r.unacked = append(r.unacked, p.MessageID)
	}
	head, recorded, isAnswer := strings.Cut(p.TopicName, "?$rid=")
	if isAnswer = isAnswer && strings.HasPrefix(head, "$iothub/methods/res/"); isAnswer {
		p.TopicName = head + "?$rid=" + r.rids[recorded]
	}
	c.Send(p)
	if !isAnswer {
		return
	}
	got := <-r.waiting[r.rids[recorded]]
	if got.err != nil {
		r.t.Fatal(got.err)
	}
	payload := string(p.Payload)
	if payload == "" {
		payload = "null"
	}
	want := []string{strings.Trim(strings.TrimPrefix(head, "$iothub/methods/res/"), "/"), payload}
	if diff := cmp.Diff(want, []string{strconv.Itoa(int(got.result.Status)), string(got.result.Payload)}); diff != "" {
		r.t.Errorf("result of the direct method (-want +got):\n%s", diff)
	}
}

func (r *replay) fromHub(c *wiretest.Client, packet packets.ControlPacket) {
	switch want := packet.(type) {
	case *packets.ConnackPacket:
		got := wiretest.Receive[*packets.ConnackPacket](c)
		if got.ReturnCode != want.ReturnCode {
			r.t.Errorf("CONNACK %d, want %d", got.ReturnCode, want.ReturnCode)
		}
		if want.ReturnCode != 0 {
			c.WantClosed()
		}
	case *packets.PubackPacket:
		if i := slices.Index(r.unacked, want.MessageID); i >= 0 { // some publishes were too large to record
			r.unacked = slices.Delete(r.unacked, i, i+1)
			if got := r.next(c).(*packets.PubackPacket); got.MessageID != want.MessageID {
				r.t.Errorf("PUBACK %d, want %d", got.MessageID, want.MessageID)
			}
		}
	case *packets.PublishPacket:
		r.act(want)
		got := r.next(c).(*packets.PublishPacket)
		r.compare(want, got)
	default:
		if diff := cmp.Diff(packet, r.next(c)); diff != "" {
			r.t.Errorf("-want +got:\n%s", diff)
		}
	}
}

// next reads a packet. Answers to twin requests that came before their
// subscription are passed over: the recording hub did not send them.
func (r *replay) next(c *wiretest.Client) packets.ControlPacket {
	for {
		p := wiretest.Receive[packets.ControlPacket](c)
		publish, ok := p.(*packets.PublishPacket)
		if !ok || !strings.HasPrefix(publish.TopicName, "$iothub/twin/res/") || r.recorded(publish.TopicName) {
			return p
		}
	}
}

func (r *replay) recorded(topic string) bool {
	return slices.ContainsFunc(r.Packets, func(p struct {
		Conn                 int
		From, Transport, Hex string
	}) bool {
		return p.From == "hub" && strings.Contains(p.Hex, hex.EncodeToString([]byte(topic)))
	})
}

// act does what makes the hub send p, if it is not an answer.
func (r *replay) act(p *packets.PublishPacket) {
	if name, ok := strings.CutPrefix(p.TopicName, "$iothub/methods/POST/"); ok {
		name, recorded, _ := strings.Cut(name, "/?$rid=")
		r.waiting["recorded "+recorded] = invoke(r.h, r.id, hub.MethodCall{Name: name, Payload: p.Payload})
	}
	if strings.HasPrefix(p.TopicName, "devices/") {
		m := hub.Message{MessageID: "m1", Ack: hub.AckFull, Properties: []hub.Property{{Name: "color", Value: "blue"}}, Body: p.Payload}
		if err := r.h.SendMessage(r.id.Device, m); err != nil {
			r.t.Fatal(err)
		}
	}
	if strings.HasPrefix(p.TopicName, "$iothub/twin/PATCH/properties/desired/") {
		r.patch(string(p.Payload))
	}
}

func (r *replay) patch(desired string) {
	r.t.Helper()
	if _, err := r.h.PatchTwin(r.id, hub.TwinChange{Desired: json.RawMessage(desired)}, hub.Match{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *replay) compare(want, got *packets.PublishPacket) {
	if head, recorded, ok := strings.Cut(want.TopicName, "?$rid="); ok && strings.HasPrefix(head, "$iothub/methods/") {
		rid := wiretest.RequestID(got)
		r.rids[recorded] = rid
		r.waiting[rid] = r.waiting["recorded "+recorded]
		want.TopicName = head + "?$rid=" + rid
	}
	if want.TopicName != got.TopicName || want.Qos != got.Qos || want.Retain != got.Retain {
		r.t.Errorf("got %v, want %v", got, want)
	}
	if strings.HasPrefix(got.TopicName, "devices/") {
		if diff := cmp.Diff(string(want.Payload), string(got.Payload)); diff != "" {
			r.t.Errorf("message (-want +got):\n%s", diff)
		}
		return
	}
	if diff := cmp.Diff(value(r.t, want.Payload), value(r.t, got.Payload)); diff != "" {
		r.t.Errorf("payload of %s (-want +got):\n%s", got.TopicName, diff)
	}
}

// value is a payload as Go sees it; nil if there is none.
func value(t *testing.T, payload []byte) (v any) {
	t.Helper()
	if len(payload) == 0 {
		return nil
	}
	if err := json.Unmarshal(payload, &v); err != nil {
		t.Fatalf("payload %s: %v", payload, err)
	}
	return v
}
