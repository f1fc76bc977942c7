package console

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// A need is the right that an action takes.
type need int

const (
	nothing   need = iota // it changes nothing on the hub
	register              // identities are written
	operate               // twins, direct methods, messages
	schedule              // jobs
	configure             // configurations
	enroll                // enrollments
)

// rights are what the console may do. They are asked of the hub once, so that pages leave out what it would refuse; the
// hub has the last word. "See the registry" and the like are the rights of shared access policies.
type rights struct {
	ReadOnly bool // the console was started so

	RegistryRead, RegistryWrite, ServiceConnect bool
	Enrollments                                 bool // there is a provisioning service to talk to
}

// Register reports whether identities may be created, changed and deleted.
func (m rights) Register() bool { return !m.ReadOnly && m.RegistryWrite }

// Operate reports whether twins may be changed, methods called, and messages sent.
func (m rights) Operate() bool { return !m.ReadOnly && m.ServiceConnect }

// Schedule reports whether jobs may be created and cancelled.
func (m rights) Schedule() bool {
	return !m.ReadOnly && (m.ServiceConnect || m.RegistryRead && m.RegistryWrite)
}

// Configure reports whether configurations may be written.
func (m rights) Configure() bool { return !m.ReadOnly && (m.ServiceConnect || m.RegistryWrite) }

// Enroll reports whether enrollments may be written, as far as is known.
func (m rights) Enroll() bool { return !m.ReadOnly && m.Enrollments }

// knownRights are the rights that were found out.
type knownRights struct {
	mu     sync.Mutex
	until  time.Time
	rights rights
}

// What is known of rights is asked again after so long, or sooner if the hub did not answer.
const (
	rightsLife     = 5 * time.Minute
	rightsLifeDark = 10 * time.Second
	rightsWait     = 5 * time.Second
)

// may returns what the console may do.
func (c *Console) may(ctx context.Context) rights {
	k := &c.known
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.now().Before(k.until) {
		return k.rights
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rightsWait)
	defer cancel()
	dark := false
	granted := func(err error) bool {
		if _, answered := errors.AsType[*hubrest.Error](err); err != nil && !answered {
			dark = true
		}
		return !errors.Is(err, hubrest.ErrUnauthorized)
	}
	client := c.opt.Client
	_, serve := client.ConnectedDevices(ctx)
	k.rights = rights{ReadOnly: c.opt.ReadOnly, Enrollments: c.opt.Provisioning != nil, ServiceConnect: granted(serve)}
	if !dark {
		_, read := client.Device(ctx, probe)
		_, write := client.Bulk(ctx, []hubrest.BulkEntry{})
		k.rights.RegistryRead, k.rights.RegistryWrite = granted(read), granted(write)
	}
	k.until = c.now().Add(rightsLife)
	if dark { // assume the best, and let the hub refuse
		k.rights.RegistryRead, k.rights.RegistryWrite, k.rights.ServiceConnect = true, true, true
		k.until = c.now().Add(rightsLifeDark)
	}
	return k.rights
}

// probe is a device whose absence tells as much as its presence.
const probe = "iotdm-console"

// refusal is why the console may not do what needs n, or nil.
func (c *Console) refusal(ctx context.Context, n need) error {
	if n == nothing {
		return nil
	}
	if c.opt.ReadOnly {
		return &problem{status: 403, text: "this console is read-only; it was started with --read-only"}
	}
	m := c.may(ctx)
	for _, rule := range []struct {
		need need
		may  bool
		text string
	}{
		{register, m.Register(), "RegistryWrite"},
		{operate, m.Operate(), "ServiceConnect"},
		{schedule, m.Schedule(), "ServiceConnect, or RegistryRead and RegistryWrite"},
		{configure, m.Configure(), "RegistryWrite or ServiceConnect"},
	} {
		if rule.need == n && !rule.may {
			return &problem{status: 403, text: "the hub does not let this console do that: its credential lacks " + rule.text}
		}
	}
	return nil
}
