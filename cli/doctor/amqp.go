package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/iotdm/iotdm/hubamqp"
)

// amqpRemedy is for a hub that AMQP does not reach.
const amqpRemedy = "\"service events\", \"service c2d\" and the back ends of others need it: have the firewall let port 5671 out, or WebSocket on 443 through"

// checkAMQP connects to the hub over AMQP, as a service, and has it accept the
// credential. That takes nothing from anybody.
func (x *examination) checkAMQP(ctx context.Context) Check {
	if c := x.found(CheckCredential); c.Verdict == Failed {
		return skipped(CheckAMQP, "the credential does not hold over HTTPS")
	}
	var blocked error // why not over TLS alone
	if x.amqp.tcpErr == nil && x.amqp.tlsErr == nil && !x.NoAMQPS {
		err := x.openAMQP(ctx, hubamqp.TCP)
		if err == nil {
			return ok(CheckAMQP, "the hub takes AMQP, and accepts the credential")
		}
		if errors.Is(err, hubamqp.ErrUnauthorized) {
			return x.refusedAMQP(err)
		}
		blocked = err
	}
	err := x.openAMQP(ctx, hubamqp.WebSocket)
	switch {
	case errors.Is(err, hubamqp.ErrUnauthorized):
		return x.refusedAMQP(err)
	case err != nil && blocked != nil:
		return warning(CheckAMQP, fmt.Sprintf("no AMQP: %s; over WebSocket: %s", plainError(blocked), plainError(err)), amqpRemedy)
	case err != nil:
		return warning(CheckAMQP, "no AMQP over WebSocket: "+plainError(err), amqpRemedy)
	case x.NoAMQPS:
		return ok(CheckAMQP, "the hub takes AMQP over WebSocket, and accepts the credential")
	}
	detail := "the hub takes AMQP over WebSocket only"
	if blocked != nil {
		detail += ": " + plainError(blocked)
	}
	return warning(CheckAMQP, detail, "\"iotdm service\" takes WebSocket by itself; tell other programs to, which the SDKs call AmqpWebSockets or AMQPS_WS, or have the firewall let port 5671 out")
}

func (x *examination) refusedAMQP(err error) Check {
	return warning(CheckAMQP, "the hub refuses over AMQP a credential that it accepts over HTTPS: "+plainError(err), "look at the hub's log")
}

// openAMQP connects, and goes no further.
func (x *examination) openAMQP(ctx context.Context, transport hubamqp.Transport) error {
	ctx, cancel := x.step(ctx)
	defer cancel()
	client, err := hubamqp.New(hubamqp.Options{
		ConnectionString: x.Connection,
		Credential:       x.Credential,
		Transport:        transport,
		Addr:             x.AMQPSAddr,
		WebSocketAddr:    x.HTTPSAddr,
		TLS:              &tls.Config{RootCAs: x.Roots, MinVersion: tls.VersionTLS12},
		Logger:           x.Logger,
		Now:              x.signing,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Check(ctx)
	return err
}
