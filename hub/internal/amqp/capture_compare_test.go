package amqp_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/recorded"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

// fromHub waits for what the recording peer sent, and compares.
func (r *replay) fromHub(f *recorded.Frame) {
	if f.Header != "" {
		if got := r.ReceiveHeader(); got != f.Header {
			r.t.Fatalf("the hub's header is %q, want %q", got, f.Header)
		}
		return
	}
	channel := r.channels[true][f.Channel]
	switch want := f.Body.(type) {
	case *wire.SASLMechanisms:
		got := frame[*wire.SASLMechanisms](r, nil).Mechanisms
		if diff := gocmp.Diff([]wire.Symbol{"MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"}, got); diff != "" {
			r.t.Errorf("mechanisms (-want +got):\n%s", diff)
		}
	case *wire.SASLOutcome:
		if got := frame[*wire.SASLOutcome](r, nil); got.Code != want.Code {
			r.t.Errorf("the outcome of SASL is %d, want %d", got.Code, want.Code)
		}
	case *wire.Open:
		got := frame[*wire.Open](r, nil)
		if got.MaxFrameSize < 512 || got.ChannelMax == 0 || got.IdleTimeout <= 0 {
			r.t.Errorf("open is %+v", got)
		}
	case *wire.Begin:
		r.channels[true][f.Channel] = *want.RemoteChannel
		got := frame[*wire.Begin](r, func(got *received) bool { return got.channel == *want.RemoteChannel })
		if got.HandleMax < 255 {
			r.t.Errorf("handle-max is %d", got.HandleMax)
		}
	case *wire.Attach:
		l := link{want.Name, !want.Role}
		r.theirs[place{channel, want.Handle}] = l
		r.attached(l, frame[*wire.Attach](r, func(got *received) bool { return got.link == l }))
	case *wire.Flow:
		r.creditFor(r.theirs[place{channel, *want.Handle}])
	case *wire.Transfer:
		l := r.theirs[place{channel, want.Handle}]
		if addressed(r.attaches[l], "filenotifications") {
			return // there are none
		}
		r.act(l, f.Message)
		got := r.next("message on "+addressOf(r.attaches[l]), func(got *received) bool { return got.message != nil && got.link == l })
		r.compare(l, want, f.Message, got)
		if t := got.Body.(*wire.Transfer); t.Settled == nil || !*t.Settled {
			r.deliveries[delivery{channel, *want.DeliveryID}] = delivery{channel, *t.DeliveryID}
		}
	case *wire.Disposition:
		for id := want.First; want.Role == wire.Receiver && id <= *cmp.Or(want.Last, &want.First); id++ {
			d := delivery{channel, id}
			if r.toModules[d] {
				want.State = r.fate(d)
			}
			r.disposed(d, want.State)
		}
	case *wire.Detach:
		l := r.theirs[place{channel, want.Handle}]
		if r.late[l] {
			return // with the session, the link has gone
		}
		r.detached(want, frame[*wire.Detach](r, func(got *received) bool { return got.link == l }))
	case *wire.End:
		frame[*wire.End](r, func(got *received) bool { return got.channel == channel })
	case *wire.Close:
		if got := frame[*wire.Close](r, nil); got.Error != nil {
			r.t.Errorf("the hub closes the connection: %v", got.Error)
		}
	}
}

// frame waits for a frame of a kind that fits.
func frame[P wire.Performative](r *replay, fits func(*received) bool) P {
	r.t.Helper()
	var want P
	got := r.next(fmt.Sprintf("%T", want), func(got *received) bool {
		_, ok := got.Body.(P)
		return ok && (fits == nil || fits(got))
	})
	return got.Body.(P)
}

// attached compares an answer with what the client attached: modes, addresses and
// filters are echoed. A refusal has no terminus, but for readers whose partition has
// another.
func (r *replay) attached(l link, got *wire.Attach) {
	asked := r.attaches[l]
	want := &wire.Attach{
		Name: asked.Name, Role: !asked.Role, SndSettleMode: asked.SndSettleMode, RcvSettleMode: asked.RcvSettleMode,
		Source: cmp.Or(asked.Source, &wire.Source{}), Target: cmp.Or(asked.Target, &wire.Target{}),
	}
	if refusal := r.refusals[r.at]; refusal != nil && refusal.Condition != "amqp:link:stolen" {
		want.Source, want.Target = nil, nil
	}
	if l.role == wire.Receiver {
		want.InitialDeliveryCount = new(uint32(0))
	} else if want.Target != nil && addressed(asked, "/messages/") && got.MaxMessageSize == nil {
		r.t.Errorf("there is no max-message-size in the answer to %+v", asked)
	}
	if addressed(asked, "messages/events") && l.role == wire.Receiver && r.refusals[r.at] == nil && !addressed(asked, "/devices/") {
		frame[*wire.Detach](r, func(got *received) bool {
			d := got.Body.(*wire.Detach)
			return got.link == l && d.Error != nil && d.Error.Condition == "amqp:link:redirect"
		})
		r.over = true // the recording peer was the event hub itself
		return
	}
	echoed := *got
	echoed.Handle, echoed.MaxMessageSize, echoed.OfferedCapabilities, echoed.Properties = 0, nil, nil, nil
	if diff := gocmp.Diff(want, &echoed); diff != "" {
		r.t.Errorf("the answer to %+v (-want +got):\n%s", asked, diff)
	}
}

// disposed waits until the hub has settled a delivery of the client's.
func (r *replay) disposed(d delivery, want wire.State) {
	for {
		if got, ok := r.settled[d]; ok {
			if !got.settled {
				r.t.Errorf("delivery %+v is not settled", d)
			}
			if diff := gocmp.Diff(shapeOf(want), shapeOf(got.state)); diff != "" {
				r.t.Errorf("what became of delivery %+v (-want +got):\n%s", d, diff)
			}
			return
		}
		f, err := r.Frame()
		if err != nil {
			r.t.Fatalf("delivery %+v is not settled: %v; there were %v", d, err, r.list())
		}
		r.observe(f)
	}
}

// shapeOf is a state without the words of an error.
func shapeOf(s wire.State) string {
	if rejected, ok := s.(*wire.Rejected); ok && rejected.Error != nil {
		return "rejected with " + string(rejected.Error.Condition)
	}
	return fmt.Sprintf("%T", s)
}

func (r *replay) detached(want, got *wire.Detach) {
	if !got.Closed {
		r.t.Errorf("detach is not closed")
	}
	if want.Error == nil {
		if got.Error != nil {
			r.t.Errorf("a link is detached with %v", got.Error)
		}
		return
	}
	if got.Error == nil || got.Error.Condition != want.Error.Condition {
		r.t.Errorf("a link is detached with %v, want %s", got.Error, want.Error.Condition)
		return
	}
	r.over = want.Error.Condition == "amqp:unauthorized-access" // it has no right to what comes next either
	for _, e := range want.Error.Info {
		if v := got.Error.Info.Get(string(e.Key.(wire.Symbol))); fmt.Sprintf("%T", v) != fmt.Sprintf("%T", e.Value) {
			r.t.Errorf("the error's info says of %s %#v, want what is like %#v", e.Key, v, e.Value)
		}
	}
}

// act does what makes the hub send a message, if it is no answer.
func (r *replay) act(l link, m *wire.Message) {
	a := r.attaches[l]
	answer := m.Properties != nil && m.Properties.CorrelationID != nil
	switch {
	case addressed(a, "$cbs"), addressed(a, "$management"), addressed(a, "/registrations/"), addressed(a, "/twin") && answer:
	case addressed(a, "/twin"):
		if _, err := r.h.PatchTwin(idsIn(addressOf(a))[0], hub.TwinChange{Desired: withoutVersion(r, m.Data[0])}, hub.Match{}); err != nil {
			r.t.Fatal(err)
		}
	case addressed(a, "/methods/"):
		r.invoke(idsIn(addressOf(a))[0], m)
	case addressed(a, "feedback"):
		r.feedback()
	case addressed(a, "/partitions/"):
		r.telemetry(addressOf(a), m)
	case addressed(a, "/messages/devicebound"):
		r.message(idsIn(addressOf(a))[0].Device, m)
	}
}

func (r *replay) invoke(id hub.ID, m *wire.Message) {
	done := make(chan invocation, 1)
	if err := r.h.AwaitMethod(r.t.Context(), id, "any", wiretest.Patience); err != nil {
		r.t.Fatal(err)
	}
	call := hub.MethodCall{Name: m.ApplicationProperties.Get("IoThub-methodname").(string), Payload: m.Data[0]}
	go func() {
		result, err := r.h.InvokeMethod(r.t.Context(), id, call)
		done <- invocation{result, err}
	}()
	r.waiting["next"] = done
}

// message sends a message to a device.
func (r *replay) message(device string, m *wire.Message) {
	p := m.Properties
	sent := hub.Message{Body: m.Data[0], ContentType: p.ContentType, ContentEncoding: p.ContentEncoding, UserID: string(p.UserID)}
	sent.MessageID, _ = p.MessageID.(string)
	sent.CorrelationID, _ = p.CorrelationID.(string)
	for _, e := range m.ApplicationProperties {
		if e.Key == "iothub-ack" {
			sent.Ack = hub.Ack(e.Value.(string))
			continue
		}
		sent.Properties = append(sent.Properties, hub.Property{Name: e.Key.(string), Value: e.Value.(string)})
	}
	wiretest.SendMessage(r.t, r.h.Node, device, sent)
}

// feedback has a device complete a message whose sender wants to know. The first
// batch of feedback doesn't wait for others.
func (r *replay) feedback() {
	r.h.Device("feeder")
	wiretest.SendMessage(r.t, r.h.Node, "feeder", hub.Message{MessageID: "m1", Ack: hub.AckFull, Body: []byte("x")})
	m, ok, err := r.h.ReceiveMessage("feeder", time.Minute)
	if err == nil && ok {
		err = r.h.CompleteMessage("feeder", m.LockToken)
	}
	if err != nil || !ok {
		r.t.Fatalf("the message that gives feedback: %v, %v", ok, err)
	}
}

// telemetry has a device send an event into the partition that an address names.
func (r *replay) telemetry(address string, m *wire.Message) {
	var partition int
	fmt.Sscan(address[strings.LastIndex(address, "/")+1:], &partition)
	for i := 0; r.senders[partition] == nil; i++ {
		id := hub.ID{Device: fmt.Sprintf("sender%d", i)}
		cs := r.h.Device(id.Device)
		cs.HostName = "hub.localhost"
		token := wiretest.Sign(r.t, cs.Audience(), "", cs.SharedAccessKey, time.Now().Add(time.Hour))
		grant, err := r.h.Authenticate("hub.localhost", id, token, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		send := func(body []byte, message string) {
			stored := make(chan error, 1)
			m := hub.Telemetry{
				Body: body, System: []hub.Property{{Name: "message-id", Value: message}}, Properties: []hub.Property{{Name: "k", Value: "v"}},
			}
			err := r.h.ReceiveTelemetry(hub.Peer{ID: id, Host: "hub.localhost", Grant: grant}, m, func(err error) { stored <- err })
			if err == nil {
				err = <-stored
			}
			if err != nil {
				r.t.Fatal(err)
			}
		}
		send([]byte(`{"t":0}`), "m0")
		r.senders[wiretest.Telemetry(r.t, r.h.Node, id.Device)[0].Partition] = send
	}
	r.senders[partition](m.Data[0], "m1")
}

// withoutVersion is a patch of desired properties as a service writes it.
func withoutVersion(r *replay, body []byte) []byte {
	text := string(body)
	if i := strings.Index(text, `,"$version"`); i >= 0 {
		text = text[:i] + "}"
	}
	value(r.t, []byte(text))
	return []byte(text)
}

// compare compares a message by what its receivers look at.
func (r *replay) compare(l link, want *wire.Transfer, recorded *wire.Message, got *received) {
	a, m := r.attaches[l], got.message
	transfer := got.Body.(*wire.Transfer)
	if asked := a.SndSettleMode; asked != nil && *asked == wire.SndSettled && (transfer.Settled == nil || !*transfer.Settled) {
		r.t.Errorf("a message on %s is not settled", addressOf(a))
	}
	if len(transfer.DeliveryTag) == 0 || len(transfer.DeliveryTag) > 32 {
		r.t.Errorf("the delivery tag is %x", transfer.DeliveryTag)
	}
	for _, section := range []wire.Map{m.Annotations, m.ApplicationProperties} {
		for _, e := range section {
			if e.Value == nil {
				r.t.Errorf("%v is null", e.Key)
			}
		}
	}
	switch {
	case addressed(a, "$cbs"):
		r.wantReply(recorded, m)
		if request, ok := r.requests[correlationOf(recorded)]; ok && recorded.ApplicationProperties.Get("status-code") == int32(200) {
			if s, ok := r.settled[request]; !ok || s.order > got.order {
				r.t.Errorf("the answer to put-token comes before its settlement")
			}
		}
	case addressed(a, "$management"):
		r.wantReply(recorded, m)
		r.wantLike("management", recorded.Value, m.Value)
	case addressed(a, "/twin"):
		r.wantTwin(recorded, m)
	case addressed(a, "/registrations/"):
		r.wantOperation(recorded, m)
	case addressed(a, "/methods/"):
		id, ok := m.Properties.CorrelationID.(wire.UUID)
		if !ok {
			r.t.Errorf("the correlation id of a direct method is %#v", m.Properties.CorrelationID)
		}
		of := recorded.Properties.CorrelationID.(wire.UUID)
		r.ids[of], r.ids[dashed(of)], r.ids["last"] = id, dashed(id), id
		r.waiting[id] = r.waiting["next"]
		r.same("the direct method", recorded.ApplicationProperties, m.ApplicationProperties)
		r.same("the payload", value(r.t, recorded.Data[0]), value(r.t, slices.Concat(m.Data...)))
	case addressed(a, "feedback"):
		r.same("content type", recorded.Properties.ContentType, m.Properties.ContentType)
		if records, ok := value(r.t, slices.Concat(m.Data...)).([]any); !ok || len(records) != 1 {
			r.t.Errorf("feedback is %s", m.Data)
		}
		r.wantTypes(wire.Map{{Key: "iothub-enqueuedtime", Value: time.Time{}}}, m.Annotations)
		if len(m.Properties.UserID) == 0 {
			r.t.Error("feedback has no user id")
		}
	case addressed(a, "/partitions/"):
		r.wantTypes(recorded.Annotations, m.Annotations)
		r.wantTypes(recorded.ApplicationProperties, m.ApplicationProperties)
		if len(m.Data) == 0 {
			r.t.Error("an event has no data section")
		}
	default:
		r.wantMessage(recorded, m)
	}
}

func dashed(id wire.UUID) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

func correlationOf(m *wire.Message) any {
	if m.Properties == nil {
		return nil
	}
	return m.Properties.CorrelationID
}

func (r *replay) same(what string, want, got any) {
	r.t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// wantTypes wants what a map has, with the types that it has.
func (r *replay) wantTypes(want, got wire.Map) {
	r.t.Helper()
	for _, e := range want {
		name := fmt.Sprint(e.Key)
		if v := got.Get(name); fmt.Sprintf("%T", v) != fmt.Sprintf("%T", e.Value) {
			r.t.Errorf("%s is %#v, want what is like %#v; there are %v", name, v, e.Value, got)
		}
	}
}

// wantReply compares the answer to a request.
func (r *replay) wantReply(recorded, m *wire.Message) {
	r.t.Helper()
	r.same("correlation id", correlationOf(recorded), correlationOf(m))
	status := recorded.ApplicationProperties.Get("status-code")
	if status == int32(202) {
		status = int32(200) // which all clients take
	}
	if got := m.ApplicationProperties.Get("status-code"); got != status {
		r.t.Errorf("the status is %#v, %v, want %v", got, m.ApplicationProperties.Get("status-description"), status)
	}
	r.wantTypes(wire.Map{{Key: "status-description", Value: ""}}, m.ApplicationProperties)
	if m.Data != nil || !m.HasValue {
		r.t.Errorf("the answer has no value: %+v", m)
	}
}

// wantLike wants the members of a map to have the types that they have.
func (r *replay) wantLike(what string, recorded, got any) {
	r.t.Helper()
	want, ok := recorded.(wire.Map)
	if !ok {
		return
	}
	fields, ok := got.(wire.Map)
	if !ok {
		r.t.Errorf("%s is %#v", what, got)
		return
	}
	r.wantTypes(want, fields)
}

func (r *replay) wantTwin(recorded, m *wire.Message) {
	r.t.Helper()
	r.same("correlation id", correlationOf(recorded), correlationOf(m))
	body := slices.Concat(m.Data...)
	if m.Data == nil {
		r.t.Errorf("the body is no data section: %+v", m)
	}
	if correlationOf(recorded) == nil {
		r.same("resource", recorded.Annotations.Get("resource"), m.Annotations.Get("resource"))
		got, _ := value(r.t, body).(map[string]any)
		if _, ok := got["$version"]; !ok {
			r.t.Errorf("the patch has no version: %s", body)
		}
		return
	}
	status, ok := m.Annotations.Get("status").(int32)
	if !ok || status != 200 && (status != 204 || recorded.Annotations.Get("status") != int32(204)) {
		r.t.Errorf("the status is %#v, want %v", m.Annotations.Get("status"), recorded.Annotations.Get("status"))
	}
	if recorded.Annotations.Get("version") != nil && m.Annotations.Get("version") == nil {
		r.t.Errorf("there is no version: %v", m.Annotations)
	}
	if len(recorded.Data[0]) > 0 {
		want, _ := value(r.t, recorded.Data[0]).(map[string]any)
		got, _ := value(r.t, body).(map[string]any)
		for name := range want {
			if got[name] == nil {
				r.t.Errorf("the twin has no %q: %s", name, body)
			}
		}
	}
}

// wantMessage compares a cloud-to-device message. The types of its annotations
// are those that .NET insists on, not the recording peer's.
func (r *replay) wantMessage(recorded, m *wire.Message) {
	r.t.Helper()
	want, got := *recorded.Properties, *m.Properties
	want.To, got.To = strings.ToLower(want.To), strings.ToLower(got.To)
	want.AbsoluteExpiryTime, got.AbsoluteExpiryTime = time.Time{}, time.Time{} // it is in the past
	want.CreationTime, got.CreationTime = time.Time{}, time.Time{}
	r.same("properties", want, got)
	for _, e := range recorded.ApplicationProperties {
		r.same(fmt.Sprint(e.Key), e.Value, m.ApplicationProperties.Get(e.Key.(string)))
	}
	r.same("body", recorded.Data[0], slices.Concat(m.Data...))
	r.wantTypes(wire.Map{
		{Key: "iothub-enqueuedtime", Value: time.Time{}}, {Key: "iothub-deliverycount", Value: uint8(0)}, {Key: "x-opt-sequence-number", Value: uint64(0)},
	}, m.Annotations)
}
