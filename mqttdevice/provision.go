package mqttdevice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/sas"
)

const (
	// attemptsPerAssignment is how many attempts in a row may fail before the device asks whether its hub
	// is still that, as the article "Manage device reconnections to create resilient applications" has it.
	attemptsPerAssignment = 10
	// provisionTimeout is how long it may take to find out. A device that has a hub then tries that again.
	provisionTimeout = 2 * time.Minute
)

var errProvisionTimeout = fmt.Errorf("the provisioning service has not assigned a hub within %v", provisionTimeout)

// An Endpoint is where a device connects, and as whom.
type Endpoint struct {
	ConnectionString sas.ConnectionString
	Addr             string // as Options.Addr
	WebSocketAddr    string // as Options.WebSocketAddr
}

// A provisionError is a failure of Options.Provision, to tell it from one of the hub.
type provisionError struct{ err error }

func (e *provisionError) Error() string { return e.err.Error() }
func (e *provisionError) Unwrap() error { return e.err }

func isProvisionError(err error) bool {
	_, ok := errors.AsType[*provisionError](err)
	return ok
}

// checkConnectionString refuses one that no device can connect with.
func checkConnectionString(cs sas.ConnectionString) error {
	if cs.HostName == "" || cs.DeviceID == "" {
		return errors.New("connection string: HostName and DeviceId are needed; is it the one of a device?")
	}
	if cs.SharedAccessSignature == "" && !cs.X509 {
		if err := cs.SharedAccessKey.Validate(); err != nil {
			return fmt.Errorf("connection string: %w", err)
		}
	}
	return nil
}

// adopt makes e where the client connects from now on. There is no session.
func (c *Client) adopt(e Endpoint) {
	opt := c.opt
	opt.ConnectionString, opt.Addr, opt.WebSocketAddr = e.ConnectionString, e.Addr, e.WebSocketAddr
	d := newDialer(opt, c.log)
	if c.dialer != nil { // what the network lets through is the same
		d.NotTCP, d.Until = c.dialer.NotTCP, c.dialer.Until
	}
	cs := e.ConnectionString
	id := cs.DeviceID
	if cs.ModuleID != "" {
		id += "/" + cs.ModuleID
	}
	c.opt, c.dialer, c.certificateEnd = opt, d, certificateEnd(opt)
	c.user = userName(hostOnly(cs.HostName), id, opt.ModelID)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id = id
}

// clientID is c.id for who is not the goroutine that connects. It may be of the next session or the last.
func (c *Client) clientID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// provision finds out where the device belongs, because of what the last attempt failed with.
func (c *Client) provision(ctx context.Context) error {
	c.notify(State{Status: Provisioning})
	ctx, cancel := context.WithTimeoutCause(ctx, provisionTimeout, errProvisionTimeout)
	defer cancel()
	c.link.asked++
	e, err := c.opt.Provision(ctx, c.link.reason)
	if err == nil {
		err = checkConnectionString(e.ConnectionString)
	}
	// A device with a hub tries that in between: it may be back, or take the device again.
	c.link.astray = err != nil && c.opt.ConnectionString.HostName == ""
	if err != nil {
		return &provisionError{err}
	}
	if now := c.opt.ConnectionString; e.ConnectionString.HostName != now.HostName || e.ConnectionString.DeviceID != now.DeviceID {
		c.log.Info("provisioned", logHub, e.ConnectionString.HostName, logAs, e.ConnectionString.DeviceID)
	}
	c.adopt(e)
	return nil
}

// fatal reports whether a first connection that failed with err would only fail again. A hub that refuses
// the device leaves the provisioning service to be asked.
func (c *Client) fatal(err error) bool {
	if c.opt.Provision != nil && !isProvisionError(err) && errors.Is(err, ErrUnauthorized) {
		return false
	}
	return permanent(err)
}

// doubt has the next attempt ask where the device belongs, if the last one gives a reason to. It reports
// whether that is that the hub refuses the device.
func (c *Client) doubt(reason error) (refused bool) {
	c.link.reason = reason
	if c.opt.Provision == nil || isProvisionError(reason) {
		return false
	}
	refused = errors.Is(reason, ErrUnauthorized)
	c.link.astray = c.link.astray || refused || c.link.failures%attemptsPerAssignment == 0
	return refused
}
