package amqp_test

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/internal/amqp"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/serve"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	hubstore "github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// A slowPeer is the other end of a connection to a hub whose clock the test owns:
// time passes when everybody waits. Writes block until the hub reads.
type slowPeer struct {
	*wiretest.AMQPPeer
	log    *wiretest.LogBuffer
	closed chan time.Time // when the hub closed the connection, if it was listened to
}

const policyKey sas.Key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// inBubble runs a test with a connection to a hub.
func inBubble(t *testing.T, run func(t *testing.T, p *slowPeer)) {
	synctest.Test(t, func(t *testing.T) {
		db, err := hubstore.OpenMemory(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		events, err := eventlog.OpenMemory(eventlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer events.Close()
		h, err := hub.New(hub.Options{Store: db, Events: events, Policies: []hub.Policy{
			{Name: "service", PrimaryKey: policyKey, SecondaryKey: policyKey, Rights: []hub.Right{hub.ServiceConnect}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		log := new(wiretest.LogBuffer)
		d := amqp.New(h, amqp.Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
		defer func() {
			h.Stop()
			d.Close()
		}()
		near, far := net.Pipe()
		p := &slowPeer{&wiretest.AMQPPeer{T: t, Conn: near}, log, make(chan time.Time, 1)}
		defer near.Close()
		d.ServeConn(far, "", nil)
		run(t, p)
	})
}

// listen reads what the hub sends, and forgets it, until the connection ends.
func (p *slowPeer) listen() {
	p.SetDeadline(time.Time{})
	go func() {
		io.Copy(io.Discard, p)
		p.closed <- time.Now()
	}()
}

// wantClosedAfter wants the hub to close the connection at that time from began,
// and to say why in one line.
func (p *slowPeer) wantClosedAfter(began time.Time, want time.Duration, reason string) {
	p.T.Helper()
	select {
	case at := <-p.closed:
		if got := at.Sub(began); got != want {
			p.T.Errorf("closed after %v, want %v", got, want)
		}
	case <-time.After(want + time.Hour):
		p.T.Fatalf("not closed %v after the time", time.Hour)
	}
	synctest.Wait()
	var lines []string
	for line := range strings.Lines(p.log.String()) {
		if !strings.Contains(line, "msg=connected") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0], reason) {
		p.T.Errorf("the log has, instead of one line with %q:\n%s", reason, strings.Join(lines, ""))
	}
}

// claim has the peer say who it is.
func (p *slowPeer) claim(life time.Duration) {
	p.T.Helper()
	token, err := sas.Sign("localhost", "service", policyKey, time.Now().Add(life))
	if err != nil {
		p.T.Fatal(err)
	}
	p.Header(wire.HeaderSASL)
	wiretest.ReceiveAMQP[*wire.SASLMechanisms](p.AMQPPeer)
	p.Send(0, &wire.SASLInit{Mechanism: "PLAIN", InitialResponse: plainOf("service@sas.root.localhost", token)})
	if outcome, _ := wiretest.ReceiveAMQP[*wire.SASLOutcome](p.AMQPPeer); outcome.Code != 0 {
		p.T.Fatalf("the outcome of SASL is %d", outcome.Code)
	}
	p.Open("localhost")
}

// drip writes a byte a minute until that fails, which it says on the channel.
func (p *slowPeer) drip(b []byte) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range b {
			if _, err := p.Write(b[i : i+1]); err != nil {
				return
			}
			time.Sleep(time.Minute) // of the bubble's clock
		}
	}()
	return done
}

// Who doesn't say in time who it is has to go. It is told so a second before
// nobody would hear it, if it is so far that AMQP can tell it.
func TestStrangersHaveLittleTime(t *testing.T) {
	for _, tt := range []struct {
		name string
		does func(p *slowPeer)
		want time.Duration
	}{
		{"nothing at all", func(*slowPeer) {}, serve.AuthTimeout},
		{"half a header", func(p *slowPeer) { p.SendBytes([]byte("AMQ")) }, serve.AuthTimeout},
		{"a header", func(p *slowPeer) { p.Header(wire.HeaderSASL) }, serve.AuthTimeout},
		{"half a SASL frame", func(p *slowPeer) {
			p.Header(wire.HeaderSASL)
			wiretest.ReceiveAMQP[*wire.SASLMechanisms](p.AMQPPeer)
			p.SendBytes([]byte{0, 0, 1, 0, 2, 1, 0, 0, 0x00, 0x53})
		}, serve.AuthTimeout},
		{"SASL and nothing behind it", func(p *slowPeer) {
			p.Header(wire.HeaderSASL)
			wiretest.ReceiveAMQP[*wire.SASLMechanisms](p.AMQPPeer)
			p.Send(0, &wire.SASLInit{Mechanism: "ANONYMOUS"})
			wiretest.ReceiveAMQP[*wire.SASLOutcome](p.AMQPPeer)
		}, serve.AuthTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *slowPeer) {
				began := time.Now()
				tt.does(p)
				p.listen()
				p.wantClosedAfter(began, tt.want, "has not shown in time who it is")
			})
		})
	}
	t.Run("a header of one byte a minute", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			began := time.Now()
			p.listen()
			dripped := p.drip([]byte(wire.HeaderAMQP))
			p.wantClosedAfter(began, serve.AuthTimeout, "has not shown in time who it is")
			<-dripped
		})
	})
	for name, does := range map[string]func(p *slowPeer){
		"an open without a claim": func(p *slowPeer) { p.Open("localhost") },
		"a link to $cbs without a claim": func(p *slowPeer) {
			p.Open("localhost")
			p.Send(0, &wire.Attach{Name: "cbs", Source: &wire.Source{}, Target: &wire.Target{Address: "$cbs"}, InitialDeliveryCount: new(uint32(0))})
			wiretest.ReceiveAMQP[*wire.Attach](p.AMQPPeer)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, p *slowPeer) {
				began := time.Now()
				does(p)
				e := p.WantClose("amqp:unauthorized-access")
				if took, want := time.Since(began), serve.AuthTimeout-time.Second; took != want {
					t.Errorf("%v after %v, want %v", e, took, want)
				}
				synctest.Wait()
				wantOneLine(t, p.log.String(), "connection refused", "has not shown in time who it is")
			})
		})
	}
}

// Who is known may be silent for twice as long as it was told.
func TestKnownPeersThatAreSlow(t *testing.T) {
	const patience = 8 * time.Minute
	t.Run("silent", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			p.claim(time.Hour)
			p.listen()
			p.wantClosedAfter(time.Now(), patience, "silent")
		})
	})
	t.Run("a frame of one byte a minute", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			p.claim(time.Hour)
			began := time.Now()
			p.listen()
			dripped := p.drip(wire.AppendFrame(nil, 0, &wire.Attach{Name: strings.Repeat("x", 10000)}, nil))
			p.wantClosedAfter(began, patience, "silent")
			<-dripped
		})
	})
	t.Run("an empty frame now and then is enough", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			p.claim(10 * time.Hour)
			p.listen()
			for range 10 {
				time.Sleep(patience - time.Second) // of the bubble's clock
				p.SendBytes(wire.AppendFrame(nil, 0, nil, nil))
			}
			p.wantClosedAfter(time.Now(), patience, "silent")
		})
	})
	t.Run("the token's expiry and five minutes", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			began := time.Now()
			p.claim(2 * time.Minute)
			time.Sleep(7*time.Minute - time.Second) // of the bubble's clock
			p.WantClose("amqp:unauthorized-access")
			if took, want := time.Since(began).Truncate(time.Second), 7*time.Minute; took != want {
				t.Errorf("it is closed after %v, want %v", took, want)
			}
		})
	})
	t.Run("nothing is read", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			p.claim(time.Hour)
			began := time.Now()
			echo := wire.AppendFrame(nil, 0, &wire.Flow{NextIncomingID: new(uint32(0)), IncomingWindow: 10, Echo: true}, nil)
			p.SetDeadline(time.Time{})
			var err error
			for err == nil {
				_, err = p.Write(echo)
			}
			p.closed <- time.Now()
			p.wantClosedAfter(began, 20*time.Second, "does not read")
		})
	})
	t.Run("a close is not answered", func(t *testing.T) {
		inBubble(t, func(t *testing.T, p *slowPeer) {
			p.claim(time.Hour)
			began := time.Now()
			p.Send(0, &wire.Open{MaxFrameSize: 512})
			p.listen()
			p.wantClosedAfter(began, 5*time.Second, "illegal-state")
		})
	})
}
