package amqp_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	goamqp "github.com/Azure/go-amqp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

const (
	unauthorized = "amqp:unauthorized-access"
	notFound     = "amqp:not-found"
	redirected   = "amqp:link:redirect"
)

// conditionOf returns the condition with which a link, a delivery or a
// connection was refused, or "" if it was not.
func conditionOf(t testing.TB, err error) string {
	t.Helper()
	var link *goamqp.LinkError
	var conn *goamqp.ConnError
	var remote *goamqp.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &remote):
		return string(remote.Condition)
	case errors.As(err, &link) && link.RemoteErr != nil:
		return string(link.RemoteErr.Condition)
	case errors.As(err, &conn) && conn.RemoteErr != nil:
		return string(conn.RemoteErr.Condition)
	}
	t.Fatalf("an error without a condition: %v", err)
	return ""
}

// attach attaches a link, and returns the condition if it is refused.
func attach(t testing.TB, c *wiretest.AMQPClient, address string, sends bool) string {
	t.Helper()
	ctx := wiretest.WithPatience(t)
	if sends {
		l, err := c.NewSender(ctx, address, nil)
		if err == nil {
			l.Close(ctx)
		}
		return conditionOf(t, err)
	}
	l, err := c.NewReceiver(ctx, address, &goamqp.ReceiverOptions{Credit: -1})
	if err == nil {
		l.Close(ctx)
	}
	return conditionOf(t, err)
}

// A peerOf is somebody with a credential.
type peerOf struct {
	name   string
	rights []hub.Right // of a policy
	ids    []hub.ID    // or those whom it may be: the identity, and the modules of a device
	claim  func(*wiretest.AMQPClient)
}

// peers are everybody there is: the policies, devices, a module, and nobody.
func peers(t testing.TB, h *hubtest.Hub) (all []peerOf) {
	device, module := hub.ID{Device: "d1"}, hub.ID{Device: "d1", Module: "m1"}
	claim := func(cs sas.ConnectionString) func(*wiretest.AMQPClient) {
		cs.HostName = h.HostName
		return func(c *wiretest.AMQPClient) {
			c.Claim(cs.Audience(), wiretest.Sign(t, cs.Audience(), cs.SharedAccessKeyName, cs.SharedAccessKey, h.Now().Add(time.Hour)))
		}
	}
	for _, p := range h.Policies() {
		who := peerOf{name: "policy " + p.Name, rights: p.Rights, claim: claim(h.Policy(p.Name))}
		if p.Name == node.ProvisioningPolicy { // which is good for nothing here
			who.claim = func(c *wiretest.AMQPClient) {
				if status := c.PutToken(h.HostName, wiretest.Sign(t, h.HostName, p.Name, p.PrimaryKey, h.Now().Add(time.Hour))); status != 401 {
					t.Errorf("put-token of %s is answered with %d, want 401", p.Name, status)
				}
			}
		}
		all = append(all, who)
	}
	d1, m1, d2 := h.Device("d1"), h.Module("d1", "m1"), h.Device("d2")
	anyModule := m1
	anyModule.SharedAccessKey = d1.SharedAccessKey
	bare := wiretest.Sign(t, h.HostName, "", d1.SharedAccessKey, h.Now().Add(time.Hour))
	return append(all,
		peerOf{name: "d1", ids: []hub.ID{device, module}, claim: claim(d1)},
		peerOf{name: "d1 as all of the hub", ids: []hub.ID{device, module}, claim: func(c *wiretest.AMQPClient) { c.Claim(h.HostName, bare) }},
		peerOf{name: "d1/m1", ids: []hub.ID{module}, claim: claim(m1)},
		peerOf{name: "d1/m1 by the key of d1", ids: []hub.ID{module}, claim: claim(anyModule)},
		peerOf{name: "d2", ids: []hub.ID{{Device: "d2"}}, claim: claim(d2)},
		peerOf{name: "nobody", claim: func(*wiretest.AMQPClient) {}},
	)
}

func has[T comparable](list []T, want T) bool {
	for _, v := range list {
		if v == want {
			return true
		}
	}
	return false
}

// Who may attach to what, from "Control access to IoT Hub" and reference tables
// of link addresses, and not from the door.
func TestEveryAddressHasItsRights(t *testing.T) {
	h := hubtest.New(t)
	type address struct {
		text      string
		sends     bool
		id        hub.ID // whose it is; of a service if nobody's
		permitted string // what those are told who may
	}
	partition := h.EventHub().EntityPath + "/ConsumerGroups/$Default/Partitions/0"
	addresses := []address{
		{text: "/messages/devicebound", sends: true},
		{text: "/messages/serviceBound/feedback"},
		{text: "/messages/serviceBound/filenotifications"},
		{text: "/messages/events", permitted: redirected},
		{text: "messages/events/$management", permitted: redirected},
		{text: partition},
	}
	for _, id := range []hub.ID{{Device: "d1"}, {Device: "d1", Module: "m1"}, {Device: "d2"}} {
		path := "/devices/" + id.Device
		if id.Module != "" {
			path += "/modules/" + id.Module
		}
		for _, end := range []string{"S/messages/events", "R/messages/devicebound", "S/methods/devicebound", "R/methods/devicebound", "S/twin", "R/twin"} {
			addresses = append(addresses, address{text: path + end[1:], sends: end[0] == 'S', id: id})
		}
		if id.Module != "" {
			addresses = append(addresses, address{text: path + "/messages/events", id: id})
		}
	}
	for _, p := range peers(t, h) {
		t.Run(p.name, func(t *testing.T) {
			c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
			p.claim(c)
			for _, a := range addresses {
				want := a.permitted
				switch {
				case a.id != hub.ID{}:
					if !has(p.ids, a.id) && !has(p.rights, hub.DeviceConnect) {
						want = unauthorized
					}
				case !has(p.rights, hub.ServiceConnect):
					want = unauthorized
				}
				if got := attach(t, c, a.text, a.sends); got != want {
					t.Errorf("%s, sends %t: %q, want %q", a.text, a.sends, got, want)
				}
			}
			if got := attach(t, c, "/messages/nothing", true); got != notFound {
				t.Errorf("an unknown address: %q, want %q", got, notFound)
			}
			if got := attach(t, c, "/messages/devicebound", false); got != notFound {
				t.Errorf("the wrong direction: %q, want %q", got, notFound)
			}
			want := int32(401)
			if has(p.rights, hub.ServiceConnect) {
				want = 200
			}
			if got := askManagement(t, c, h.EventHub().EntityPath); got != want {
				t.Errorf("$management answers %d, want %d", got, want)
			}
		})
	}
}

// askManagement asks what an event hub is, and returns the status of the answer.
func askManagement(t testing.TB, c *wiretest.AMQPClient, name string) int32 {
	t.Helper()
	return askManagementWith(t, c, name, "")
}

// askManagementWith is askManagement with a token in the question, if there is one.
func askManagementWith(t testing.TB, c *wiretest.AMQPClient, name, token string) int32 {
	t.Helper()
	in, out := c.Receiver("$management"), c.Sender("$management")
	ctx := wiretest.WithPatience(t)
	m := &goamqp.Message{
		Properties:            &goamqp.MessageProperties{MessageID: "q"},
		ApplicationProperties: map[string]any{"operation": "READ", "name": name, "type": "com.microsoft:eventhub"},
	}
	if token != "" {
		m.ApplicationProperties["security_token"] = token
	}
	if err := out.Send(ctx, m, nil); err != nil {
		t.Fatal(err)
	}
	reply, err := in.Receive(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	status, _ := reply.ApplicationProperties["status-code"].(int32)
	return status
}

// Java's clients put no token before they ask: the question has it.
func TestManagementTakesTheTokenOfTheQuestion(t *testing.T) {
	h := hubtest.New(t)
	device := h.Device("d1")
	name := h.EventHub().EntityPath
	soon := h.Now().Add(time.Hour)
	of := func(policy, path string) string {
		return signText(t, "amqp://"+h.HostName+path, policy, h.Policy(policy).SharedAccessKey, soon)
	}
	for _, tt := range []struct {
		name, put, shown string
		want             int32
	}{
		{name: "the event hub", shown: of("service", "/"+name), want: 200},
		{name: "all of the hub", shown: of("service", ""), want: 200},
		{name: "a policy without the right", shown: of("registryRead", "/"+name), want: 401},
		{name: "a consumer group", shown: of("service", "/"+name+"/ConsumerGroups/$Default"), want: 401},
		{name: "what does not exist", shown: of("service", "/other"), want: 401},
		{name: "another host", shown: strings.Replace(of("service", "/"+name), h.HostName, "elsewhere", 1), want: 401},
		{name: "a wrong key", shown: signText(t, "amqp://"+h.HostName+"/"+name, "service", h.Policy("registryRead").SharedAccessKey, soon), want: 401},
		{name: "expired", shown: signText(t, "amqp://"+h.HostName+"/"+name, "service", h.Policy("service").SharedAccessKey, h.Now().Add(-time.Hour)), want: 401},
		{name: "of a device", shown: wiretest.Sign(t, h.HostName+"/devices/d1", "", device.SharedAccessKey, soon), want: 401},
		{name: "no token", shown: "hello", want: 401},
		{name: "none", want: 401},
		{name: "a useless one after a good one", put: of("service", "/"+name), shown: "hello", want: 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
			if tt.put != "" {
				c.Claim("", tt.put)
			}
			if got := askManagementWith(t, c, name, tt.shown); got != tt.want {
				t.Errorf("$management answers %d, want %d", got, tt.want)
			}
		})
	}
}

// A token opens what it is for and nothing beside it, however it is signed.
func TestNarrowTokens(t *testing.T) {
	h := hubtest.New(t)
	eventHub := h.EventHub().EntityPath
	key := h.Policy("service").SharedAccessKey
	for _, tt := range []struct {
		name, token string
		opens       []string
	}{
		{"a path of IoT Hub", wiretest.Sign(t, h.HostName+"/messages/devicebound", "service", key, h.Now().Add(time.Hour)), []string{"/messages/devicebound"}},
		{"all messages", wiretest.Sign(t, h.HostName+"/messages", "service", key, h.Now().Add(time.Hour)), []string{"/messages/devicebound", "/messages/serviceBound/feedback"}},
		{"the event hub", signText(t, "sb://"+h.HostName+"/"+eventHub, "service", key, h.Now().Add(time.Hour)), []string{eventHub + "/ConsumerGroups/$Default/Partitions/0"}},
		{"a consumer group", signText(t, strings.ToLower("amqps://"+h.HostName+"/"+eventHub+"/ConsumerGroups/$Default"), "service", key, h.Now().Add(time.Hour)), []string{eventHub + "/ConsumerGroups/$Default/Partitions/0"}},
		{"another partition", signText(t, "sb://"+h.HostName+"/"+eventHub+"/ConsumerGroups/$Default/Partitions/1", "service", key, h.Now().Add(time.Hour)), nil},
		{"all of the hub, signed with the text of the key", signText(t, h.HostName, "service", key, h.Now().Add(time.Hour)), []string{eventHub + "/ConsumerGroups/$Default/Partitions/0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := wiretest.OpenAMQP(t, h, wiretest.DialAMQPTCP(t, h))
			c.Claim("", tt.token)
			for _, a := range []struct {
				text  string
				sends bool
			}{{"/messages/devicebound", true}, {"/messages/serviceBound/feedback", false}, {eventHub + "/ConsumerGroups/$Default/Partitions/0", false}} {
				want := unauthorized
				if has(tt.opens, a.text) {
					want = ""
				}
				if got := attach(t, c, a.text, a.sends); got != want {
					t.Errorf("%s: %q, want %q", a.text, got, want)
				}
			}
		})
	}
}
