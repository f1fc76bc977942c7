package mqttdevice

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/iotdm/iotdm/sas"
)

// A provisioner answers Options.Provision as a test scripts it.
type provisioner struct {
	asked chan error // the reasons it was asked for
	says  chan func() (Endpoint, error)
}

func newProvisioner() *provisioner {
	return &provisioner{make(chan error, 64), make(chan func() (Endpoint, error), 64)}
}

func (p *provisioner) provision(ctx context.Context, reason error) (Endpoint, error) {
	p.asked <- reason
	select {
	case say := <-p.says:
		return say()
	case <-ctx.Done():
		return Endpoint{}, context.Cause(ctx)
	}
}

func (p *provisioner) assign(hub, device string) {
	p.says <- func() (Endpoint, error) {
		return Endpoint{ConnectionString: sas.ConnectionString{HostName: hub, DeviceID: device, SharedAccessKey: testKey}}, nil
	}
}

func (p *provisioner) fail(err error) {
	p.says <- func() (Endpoint, error) { return Endpoint{}, err }
}

// assignable returns a client that is provisioned by p.
func assignable(t *testing.T, p *peer, by *provisioner, kept sas.ConnectionString) (*Client, *states) {
	t.Helper()
	events := &states{ch: make(chan State, 1024)}
	c, err := New(Options{ConnectionString: kept, Provision: by.provision, OnState: func(s State) { events.ch <- s }})
	if err != nil {
		t.Fatal(err)
	}
	c.dial = p.dial
	return c, events
}

// arrives takes the next connection, which has to be the device's.
func (p *peer) arrives(id string) *peerConn {
	p.t.Helper()
	c := <-p.conns
	if connect := next[*packets.ConnectPacket](c); connect.ClientIdentifier != id {
		p.t.Errorf("client id %q, want %q", connect.ClientIdentifier, id)
	}
	c.connack(packets.Accepted)
	c.suback(next[*packets.SubscribePacket](c), 0, 0, 0)
	return c
}

func TestADeviceIsProvisionedBeforeItsFirstConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, by := newPeer(t), newProvisioner()
		c, events := assignable(t, p, by, sas.ConnectionString{DeviceID: "name"})
		defer c.Close()
		by.assign("h1", "d1")
		result := make(chan error, 1)
		go func() { result <- c.Connect(t.Context()) }()
		far := p.arrives("d1")
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if reason := <-by.asked; reason != nil {
			t.Errorf("asked because of %v, want nil", reason)
		}
		if s := events.await(Provisioning); s.Attempts != 1 || s.Hub != "" || s.Device != "name" {
			t.Errorf("event %+v", s)
		}
		if s := events.await(Connected); s.Attempts != 1 || s.Hub != "h1" || s.Device != "d1" {
			t.Errorf("event %+v", s)
		}
		sent := make(chan error, 1)
		go func() { sent <- c.Send(t.Context(), Message{}) }()
		m := next[*packets.PublishPacket](far)
		far.puback(m)
		if err := <-sent; err != nil || m.TopicName != "devices/d1/messages/events/" {
			t.Errorf("sent to %s, error %v", m.TopicName, err)
		}
	})
}

func TestADeviceThatItsHubRefusesIsProvisionedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, by := newPeer(t), newProvisioner()
		c, events := assignable(t, p, by, sas.ConnectionString{HostName: "h1", DeviceID: "d1", SharedAccessKey: testKey})
		defer c.Close()
		result := make(chan error, 1)
		go func() { result <- c.Connect(t.Context()) }()
		p.refuse(packets.ErrRefusedNotAuthorised)
		if s := events.await(Disconnected); !errors.Is(s.Reason, ErrUnauthorized) || s.Retry <= 0 || s.Retry > refused.least {
			t.Errorf("event %+v", s)
		}
		// The service refuses it for now; then the hub is tried in between, and refuses it again.
		by.fail(&RegistrationError{Status: 500})
		if reason := <-by.asked; !errors.Is(reason, ErrUnauthorized) {
			t.Errorf("asked because of %v", reason)
		}
		p.refuse(packets.ErrRefusedNotAuthorised)
		by.assign("h2", "d2")
		if reason := <-by.asked; !errors.Is(reason, ErrUnauthorized) {
			t.Errorf("asked because of %v", reason)
		}
		far := p.arrives("d2")
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		// The same in the life of the client; the service has no more to say than before.
		far.Close()
		p.refuse(packets.ErrRefusedNotAuthorised)
		by.fail(&RegistrationError{Status: 404})
		<-by.asked
		p.refuse(packets.ErrRefusedNotAuthorised)
		by.assign("h2", "d2")
		<-by.asked
		p.arrives("d2")
		if s := events.await(Connected); s.Hub != "h2" {
			t.Errorf("event %+v", s)
		}
	})
}

func TestADeviceThatDoesNotReachItsHubIsProvisionedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, by := newPeer(t), newProvisioner()
		c, events := assignable(t, p, by, sas.ConnectionString{HostName: "h1", DeviceID: "d1", SharedAccessKey: testKey})
		defer c.Close()
		attempts := make(chan int, 64)
		unreachable := errors.New("unreachable")
		c.dial = func(ctx context.Context) (net.Conn, error) {
			attempts <- 1
			if c.opt.ConnectionString.HostName == "h2" {
				return p.dial(ctx)
			}
			return nil, unreachable
		}
		result := make(chan error, 1)
		go func() { result <- c.Connect(t.Context()) }()
		if reason := <-by.asked; !errors.Is(reason, unreachable) || len(attempts) != attemptsPerAssignment {
			t.Errorf("asked because of %v after %d attempts, want %v after %d", reason, len(attempts), unreachable, attemptsPerAssignment)
		}
		by.assign("h2", "d2")
		p.arrives("d2")
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		if s := events.await(Provisioning); s.Hub != "h1" || s.Attempts != attemptsPerAssignment+1 {
			t.Errorf("event %+v", s)
		}
	})
}

func TestAProvisioningServiceThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, by := newPeer(t), newProvisioner()
		c, events := assignable(t, p, by, sas.ConnectionString{})
		defer c.Close()
		result := make(chan error, 1)
		go func() { result <- c.Connect(t.Context()) }()
		began := time.Now()
		s := events.await(Disconnected)
		if s.Reason == nil || !strings.Contains(s.Reason.Error(), "within 2m0s") || s.Retry == 0 || time.Since(began) != provisionTimeout {
			t.Errorf("after %v: event %+v", time.Since(began), s)
		}
		<-by.asked
		by.assign("h1", "d1")
		p.arrives("d1")
		if err := <-result; err != nil {
			t.Error(err)
		}
	})
}

// What a provisioning service says for good is the error of Connect.
func TestAProvisioningServiceThatSaysNo(t *testing.T) {
	for _, said := range []error{&RegistrationError{Status: 401}, &RegistrationError{Status: 200, Registration: "disabled"}} {
		by := newProvisioner()
		c, events := assignable(t, newPeer(t), by, sas.ConnectionString{})
		by.fail(said)
		if err := c.Connect(t.Context()); !errors.Is(err, said) {
			t.Errorf("error %v, want %v", err, said)
		}
		if s := events.await(Disconnected); s.Reason == nil || s.Retry != 0 {
			t.Errorf("event %+v", s)
		}
		c.Close()
	}
}

func TestAssignmentsThatNoDeviceCanHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		by := newProvisioner()
		c, events := assignable(t, newPeer(t), by, sas.ConnectionString{})
		defer c.Close()
		by.assign("", "d1")
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- c.Connect(ctx) }()
		if s := events.await(Disconnected); s.Reason == nil || !strings.Contains(s.Reason.Error(), "HostName and DeviceId are needed") {
			t.Errorf("event %+v", s)
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestAClientWithoutHostNeedsProvision(t *testing.T) {
	if _, err := New(Options{ConnectionString: sas.ConnectionString{DeviceID: "d"}}); err == nil {
		t.Error("no error")
	}
}
