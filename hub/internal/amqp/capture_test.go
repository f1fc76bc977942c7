package amqp_test

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/amqp/recorded"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

// TestCaptures has the hub answer what real clients sent, and compares the shape
// of its answers with those that satisfied the clients: which performatives there
// are, what is echoed, what became of a delivery, the types of values.
func TestCaptures(t *testing.T) {
	sessions, err := recorded.Sessions()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sessions {
		t.Run(s.ID, func(t *testing.T) {
			t.Parallel()
			opt := node.Options{HostNames: []string{"hub.localhost"}, ConsumerGroups: []string{"stolen1"}}
			if strings.HasPrefix(s.ID, "node-dps") {
				opt.IDScope, opt.Assigning, opt.Clock = "0ne0001", time.Second, clock.New()
			}
			h := hubtest.New(t, hubtest.WithOptions(opt), hubtest.WithAMQPAddrs("", "127.0.0.1:0"))
			for _, c := range s.Connections {
				r := &replay{t: t, h: h, recorded: c}
				r.run()
			}
		})
	}
}

// A replay plays a client's part of a connection, and has the hub's rules do what
// made the recording peer send what it sent by itself.
type replay struct {
	t        *testing.T
	h        *hubtest.Hub
	recorded recorded.Connection
	at       int // which frame of the recorded ones is replayed

	*wiretest.AMQPPeer
	mechanism wire.Symbol // that the client chose
	policy    string      // instead of the recorded one, of tokens
	badToken  bool        // tokens are signed with another key
	over      bool        // what comes then is of no use

	links      map[place]link                       // by the client's handles, as in what is sent
	theirs     map[place]link                       // by the recording peer's
	ours       map[place]link                       // by the hub's
	channels   map[bool]map[uint16]uint16           // by the recording peer's (true) or the hub's channels, the client's
	got        []*received                          // that nothing was compared with
	credit     map[link]bool                        // the hub has given some
	refusals   map[int]*wire.Error                  // by the recording peer, of links by the frame of its attach
	settled    map[delivery]settlement              // by the hub, of the client's deliveries
	deliveries map[delivery]delivery                // of the recording peer: of the hub
	transfers  map[uint16]uint32                    // frames that the hub sent on a channel of the client's
	taken      map[link]uint32                      // deliveries that the hub sent
	sent       map[uint16]uint32                    // frames that the client sent
	order      int                                  // of what the hub sent
	ids        map[any]any                          // correlation ids of methods, recorded: of the hub
	waiting    map[any]<-chan invocation            // by the hub's correlation id
	partial    map[link]*received                   // a delivery of several frames that has begun
	requests   map[any]delivery                     // put-tokens, by their message ids
	toModules  map[delivery]bool                    // messages of the client's
	late       map[link]bool                        // the client detached them behind its end
	ended      map[uint16]bool                      // channels that the client ended
	attaches   map[link]*wire.Attach                // of the client
	senders    map[int]func(body []byte, id string) // of telemetry, by partition
}

// A place is where a link is on a connection.
type place struct {
	channel uint16
	handle  uint32
}

type link struct {
	name string
	role wire.Role // the client's
}

type delivery struct {
	channel uint16
	id      uint32
}

type settlement struct {
	order   int
	state   wire.State
	settled bool
}

type received struct {
	wire.Frame
	channel uint16 // the client's
	link    link
	order   int
	message *wire.Message
}

type invocation struct {
	result hub.MethodResult
	err    error
}

func (r *replay) run() {
	r.links, r.theirs, r.ours = map[place]link{}, map[place]link{}, map[place]link{}
	r.channels = map[bool]map[uint16]uint16{false: {}, true: {}}
	r.credit, r.settled, r.deliveries = map[link]bool{}, map[delivery]settlement{}, map[delivery]delivery{}
	r.transfers, r.taken, r.sent = map[uint16]uint32{}, map[link]uint32{}, map[uint16]uint32{}
	r.ids, r.waiting, r.partial = map[any]any{}, map[any]<-chan invocation{}, map[link]*received{}
	r.requests, r.attaches, r.senders = map[any]delivery{}, map[link]*wire.Attach{}, map[int]func([]byte, string){}
	r.late, r.ended, r.toModules = map[link]bool{}, map[uint16]bool{}, map[delivery]bool{}
	r.prepare()
	r.AMQPPeer = wiretest.NewAMQPPeer(r.t, r.dial())
	defer r.Close()
	for i := range r.recorded.Frames {
		if r.at = i; r.over {
			return
		}
		if f := &r.recorded.Frames[i]; f.FromPeer {
			r.fromHub(f)
		} else {
			r.fromClient(f)
		}
		if r.t.Failed() {
			r.t.Fatalf("that was frame %d, %+v", i, r.recorded.Frames[i].Body)
		}
	}
}

// prepare looks at what the recording peer refused, and brings about that the hub
// does so too.
func (r *replay) prepare() {
	r.refusals = map[int]*wire.Error{}
	channels, attaches := map[uint16]uint16{}, map[place]int{}
	for i, f := range r.recorded.Frames {
		if !f.FromPeer {
			continue
		}
		switch body := f.Body.(type) {
		case *wire.Begin:
			channels[f.Channel] = *body.RemoteChannel
		case *wire.Attach:
			attaches[place{channels[f.Channel], body.Handle}] = i
		case *wire.Detach:
			if body.Error != nil {
				r.refusals[attaches[place{channels[f.Channel], body.Handle}]] = body.Error
			}
		case *wire.Transfer:
			r.badToken = r.badToken || f.Message.ApplicationProperties.Get("status-code") == int32(401)
		}
	}
	for _, refusal := range r.refusals {
		switch refusal.Condition {
		case "amqp:unauthorized-access":
			r.policy = "registryRead"
		case "amqp:link:stolen":
			r.steal()
		}
	}
}

// addressOf is the address on the hub's side of a link that a client attaches.
func addressOf(a *wire.Attach) string {
	var v any
	if a.Role == wire.Sender && a.Target != nil {
		v = a.Target.Address
	}
	if a.Role == wire.Receiver && a.Source != nil {
		v = a.Source.Address
	}
	s, _ := v.(string)
	return s
}

// steal gives all partitions to readers with a higher epoch.
func (r *replay) steal() {
	for partition := range r.h.EventPartitions() {
		reader := &hub.Reader{Group: "stolen1", Partition: partition, Epoch: new(int64(1 << 40)), End: func(error) {}}
		if err := r.h.AttachReader(reader); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { r.h.DetachReader(reader) })
	}
}

func (r *replay) dial() net.Conn {
	config := r.h.ClientTLS()
	config.ServerName = "hub.localhost"
	if name := r.recorded.Certificate; name != "" {
		certificate := wiretest.Issue(name, nil, time.Now().Add(time.Hour))
		print := wiretest.Thumbprint(certificate)
		spec := hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &print}}}
		wiretest.Create(r.t, r.h.Node, hub.ID{Device: name}, spec)
		config.Certificates = []tls.Certificate{certificate}
	}
	var nc net.Conn
	var err error
	switch r.recorded.Transport {
	case "tls":
		nc, err = tls.Dial("tcp", r.h.AMQPSAddr, config)
	case "tcp":
		nc, err = net.Dial("tcp", r.h.AMQPAddr)
	case "websocket":
		path, parseErr := url.Parse(r.recorded.URL)
		if parseErr != nil {
			r.t.Fatal(parseErr)
		}
		var ws *websocket.Conn
		ws, _, err = websocket.Dial(r.t.Context(), "wss://"+r.h.HTTPSAddr+path.RequestURI(), &websocket.DialOptions{
			HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: config}}, Subprotocols: []string{"AMQPWSB10"}, Host: "hub.localhost",
		})
		if err == nil {
			ws.SetReadLimit(-1)
			nc = websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return nc
}

// fromClient sends what the client sent, with tokens, ids and numbers as this hub
// needs them.
func (r *replay) fromClient(f *recorded.Frame) {
	if f.Header != "" {
		r.SendBytes([]byte(f.Header))
		return
	}
	here := func(handle uint32) place { return place{f.Channel, handle} }
	switch body := f.Body.(type) {
	case *wire.SASLInit:
		r.mechanism = body.Mechanism
		if parts := strings.Split(string(body.InitialResponse), "\x00"); body.Mechanism == "PLAIN" {
			parts[2] = r.password(parts[1], parts[2])
			body.InitialResponse = []byte(strings.Join(parts, "\x00"))
		}
	case *wire.Begin:
		r.ended[f.Channel] = false
	case *wire.End:
		r.ended[f.Channel] = true
	case *wire.Detach:
		r.late[r.links[here(body.Handle)]] = r.ended[f.Channel]
	case *wire.Attach:
		l := link{body.Name, body.Role}
		r.links[here(body.Handle)] = l
		r.attaches[l] = body
		delete(r.credit, l)
		r.taken[l] = 0
		if body.Source != nil {
			body.Source.Address = r.rewrite(body.Source.Address)
		}
		if body.Target != nil {
			body.Target.Address = r.rewrite(body.Target.Address)
		}
		r.createFor(addressOf(body))
	case *wire.Flow:
		l := r.links[here(*body.Handle)]
		body.NextIncomingID = new(r.transfers[f.Channel])
		body.NextOutgoingID, body.OutgoingWindow = r.sent[f.Channel], 5000
		if body.DeliveryCount != nil && l.role == wire.Receiver {
			body.DeliveryCount = new(r.taken[l])
		}
	case *wire.Transfer:
		r.transfer(f, body)
		return
	case *wire.Disposition:
		if body.Role == wire.Receiver {
			r.dispose(f.Channel, body)
			return
		}
	}
	r.Send(f.Channel, f.Body)
}

func (r *replay) transfer(f *recorded.Frame, body *wire.Transfer) {
	l := r.links[place{f.Channel, body.Handle}]
	r.creditFor(l)
	id := delivery{f.Channel, *body.DeliveryID}
	m := f.Message
	if p := m.Properties; p != nil {
		p.To = r.rewrite(p.To).(string)
		r.requests[p.MessageID] = id
		if ours, ok := r.ids[p.CorrelationID]; ok {
			p.CorrelationID = ours
		}
	} else {
		r.requests[nil] = id
	}
	for i, e := range m.ApplicationProperties {
		m.ApplicationProperties[i].Value = r.rewrite(e.Value)
	}
	if addressed(r.attaches[l], "/registrations/") {
		r.poll(m)
	}
	m.Value = r.rewrite(m.Value)
	if addressed(r.attaches[l], "/messages/devicebound") && !addressed(r.attaches[l], "/devices/") {
		if idsIn(m.Properties.To)[0].Module != "" {
			r.toModules[id] = true
		}
		r.expect(m, r.fate(id))
	}
	r.sent[f.Channel]++
	r.SendMessage(f.Channel, body, m)
	if status, ok := m.ApplicationProperties.Get("IoThub-status").(int32); ok {
		got := <-r.waiting[r.ids["last"]]
		if got.err != nil || got.result.Status != status {
			r.t.Errorf("the direct method ends with %d, %v, want %d", got.result.Status, got.err, status)
		}
	}
}

// fate is what becomes of a delivery: what the recording peer made of it, but for
// messages to modules, which only IoT Edge can send.
func (r *replay) fate(d delivery) wire.State {
	if r.toModules[d] {
		return &wire.Rejected{Error: &wire.Error{Condition: "amqp:not-allowed"}}
	}
	for _, f := range r.recorded.Frames[r.at:] {
		body, ok := f.Body.(*wire.Disposition)
		if ok && f.FromPeer && r.channels[true][f.Channel] == d.channel && body.First <= d.id && d.id <= *cmp.Or(body.Last, &body.First) {
			return body.State
		}
	}
	return wire.Accepted{}
}

// expect brings about the fate of a message to a device.
func (r *replay) expect(m *wire.Message, fate wire.State) {
	id := idsIn(m.Properties.To)[0]
	rejected, ok := fate.(*wire.Rejected)
	if !ok {
		r.create(id)
		return
	}
	switch rejected.Error.Condition {
	case "amqp:not-found":
		if err := r.h.DeleteIdentity(hub.ID{Device: id.Device}, hub.Match{}); err != nil && !errors.As(err, new(*hub.Error)) {
			r.t.Fatal(err)
		}
	case "amqp:resource-limit-exceeded":
		r.create(id)
		for range 50 {
			r.h.SendMessage(id.Device, wiretest.Message("one of many")) // until it is full
		}
	}
}

// dispose settles those of the hub's deliveries that the client settled of the
// recording peer's.
func (r *replay) dispose(channel uint16, d *wire.Disposition) {
	last := *cmp.Or(d.Last, &d.First)
	var ids []uint32
	for id := d.First; id <= last; id++ {
		if ours, ok := r.deliveries[delivery{channel, id}]; ok {
			ids = append(ids, ours.id)
			delete(r.deliveries, delivery{channel, id})
		}
	}
	if n := len(ids); n == int(last-d.First)+1 && ids[n-1]-ids[0] == last-d.First {
		d.First = ids[0]
		if d.Last != nil {
			d.Last = &ids[n-1]
		}
		r.Send(channel, d)
		return
	}
	for _, id := range ids {
		r.Send(channel, &wire.Disposition{Role: d.Role, First: id, Settled: d.Settled, State: d.State})
	}
}

var (
	deviceIn   = regexp.MustCompile(`(?i)devices(?:/|%2F)([^/&%]+)(?:(?:/|%2F)modules(?:/|%2F)([^/&%]+))?`)
	eventHubIn = regexp.MustCompile(`myhub|\beh1\b`)
)

// idsIn returns the identities that a text names.
func idsIn(text string) (ids []hub.ID) {
	for _, match := range deviceIn.FindAllStringSubmatch(text, -1) {
		ids = append(ids, hub.ID{Device: match[1], Module: match[2]})
	}
	return ids
}

func (r *replay) createFor(text string) {
	for _, id := range idsIn(text) {
		r.create(id)
	}
}

func (r *replay) create(id hub.ID) {
	if id.Module != "" {
		r.h.Module(id.Device, id.Module)
	} else {
		r.h.Device(id.Device)
	}
}

// rewrite puts names of this hub into texts, and signs tokens.
func (r *replay) rewrite(v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	s = eventHubIn.ReplaceAllString(s, node.EventHubName)
	if strings.HasPrefix(s, "SharedAccessSignature ") {
		s = r.sign(s)
	}
	return s
}

var (
	audienceIn = regexp.MustCompile(`sr=([^&]*)`)
	expiryIn   = regexp.MustCompile(`se=[0-9]*`)
	policyIn   = regexp.MustCompile(`&?skn=([^&]*)`)
)

// sign signs a token again, in whose spelling nothing else is changed.
func (r *replay) sign(token string) string {
	audience := audienceIn.FindStringSubmatch(token)[1]
	plain, err := url.QueryUnescape(audience)
	if err != nil {
		r.t.Fatal(err)
	}
	var key sas.Key
	if policy := policyIn.FindStringSubmatch(token); policy != nil && policy[1] == "registration" {
		_, id, _ := strings.Cut(plain, "/registrations/")
		key = wiretest.EnrollByKey(r.t, r.h.Node, id).Attestation.SymmetricKey.Primary
	} else if policy != nil && policy[1] != "" {
		name := cmp.Or(r.policy, strings.NewReplacer("RootManageSharedAccessKey", "iothubowner", "badpolicy", "iothubowner").Replace(policy[1]))
		token = strings.Replace(token, "skn="+policy[1], "skn="+name, 1)
		key = r.h.Policy(name).SharedAccessKey
	} else {
		id := idsIn(plain)[0]
		r.create(id)
		i, err := r.h.Identity(id)
		if err != nil {
			r.t.Fatal(err)
		}
		key = i.Auth.SymmetricKey.Primary
	}
	secret, err := base64.StdEncoding.DecodeString(string(key))
	if err != nil {
		r.t.Fatal(err)
	}
	if strings.Contains(strings.ToLower(plain), node.EventHubName) {
		secret = []byte(key) // the clients of Event Hubs take the text
	}
	if r.badToken {
		secret = []byte("another")
	}
	expiry := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	token = expiryIn.ReplaceAllString(token, "se="+expiry)
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s\n%s", audience, expiry)
	return strings.Replace(token, "REDACTED", url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))), 1)
}

// password is that of PLAIN: a token, or the text of a policy's key.
func (r *replay) password(user, recorded string) string {
	if recorded == "REDACTED" {
		return string(r.h.Policy(user).SharedAccessKey)
	}
	return r.sign(recorded)
}

// next reads frames from the hub until one fits, of those that nothing was
// compared with yet.
func (r *replay) next(what string, fits func(*received) bool) *received {
	r.t.Helper()
	for i := 0; ; i++ {
		if i == len(r.got) {
			f, err := r.Frame()
			if err != nil {
				r.t.Fatalf("frame %d: there is no %s: %v; there were %v", r.at, what, err, r.list())
			}
			r.observe(f)
			if i == len(r.got) {
				i--
				continue
			}
		}
		if fits(r.got[i]) {
			f := r.got[i]
			r.got = slices.Delete(r.got, i, i+1)
			return f
		}
	}
}

func (r *replay) list() (frames []string) {
	for _, f := range r.got {
		text := fmt.Sprintf("%T%+v", f.Body, f.Body)
		frames = append(frames, text)
	}
	return frames
}

// observe takes in what the hub sent. Flows and dispositions are remembered by
// what they say, others to be compared.
func (r *replay) observe(f wire.Frame) {
	r.order++
	got := &received{Frame: f, order: r.order, channel: r.channels[false][f.Channel]}
	switch body := f.Body.(type) {
	case nil:
		return
	case *wire.Begin:
		if body.RemoteChannel == nil {
			r.t.Fatalf("a begin without a remote channel")
		}
		got.channel = *body.RemoteChannel
		r.channels[false][f.Channel] = got.channel
		r.transfers[got.channel], r.sent[got.channel] = body.NextOutgoingID, 0
	case *wire.Attach:
		got.link = link{body.Name, !body.Role}
		r.ours[place{got.channel, body.Handle}] = got.link
	case *wire.Detach:
		got.link = r.ours[place{got.channel, body.Handle}]
	case *wire.Flow:
		if body.Handle != nil && body.LinkCredit != nil && *body.LinkCredit > 0 {
			r.credit[r.ours[place{got.channel, *body.Handle}]] = true
		}
		return
	case *wire.Disposition:
		if body.Role == wire.Sender {
			return
		}
		for id := body.First; id <= *cmp.Or(body.Last, &body.First); id++ {
			r.settled[delivery{got.channel, id}] = settlement{got.order, body.State, body.Settled}
		}
		return
	case *wire.Transfer:
		r.transfers[got.channel]++
		got.link = r.ours[place{got.channel, body.Handle}]
		if begun := r.partial[got.link]; begun != nil {
			begun.Payload = append(begun.Payload, f.Payload...)
			got = begun
		}
		if body.More {
			r.partial[got.link] = got
			return
		}
		delete(r.partial, got.link)
		r.taken[got.link]++
		var err error
		if got.message, err = wire.DecodeMessage(got.Payload); err != nil {
			r.t.Fatalf("DecodeMessage(%x): %v", got.Payload, err)
		}
	}
	r.got = append(r.got, got)
}

// creditFor waits until the hub has given a link credit.
func (r *replay) creditFor(l link) {
	r.t.Helper()
	for !r.credit[l] {
		f, err := r.Frame()
		if err != nil {
			r.t.Fatalf("there is no credit for %+v: %v; there were %v", l, err, r.list())
		}
		r.observe(f)
	}
}

// addressed reports whether the hub's side of a link has an address that contains
// the text, in any case.
func addressed(a *wire.Attach, text string) bool {
	return a != nil && strings.Contains(strings.ToLower(addressOf(a)), strings.ToLower(text))
}

// value is a JSON text as Go sees it.
func value(t testing.TB, text []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return v
}
