package device

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/iotdm/iotdm/agent"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/provision"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/mqttdevice"
)

// provisionHelp is for the description of "device run".
const provisionHelp = `With --provision the device registers with the Device Provisioning Service, by a key or --cert-file, and
connects to the hub that it is assigned to. The assignment is kept in the folder of --state, without the
key: the next start goes by it, and the service is asked again when that hub refuses the device. Scope
and host of a local hub's service are found. The variables of the official samples are read, such as
PROVISIONING_IDSCOPE, PROVISIONING_REGISTRATION_ID and PROVISIONING_SYMMETRIC_KEY.`

// register finds out with which service the device registers, and as whom.
func (o *actAsOptions) register(s output.Streams) error {
	if o.device != "" || o.module != "" {
		return fail.Usagef("the provisioning service says which device it is; leave out --device and --module, or name it with --registration-id")
	}
	link, err := o.link.Link()
	if err != nil {
		return err
	}
	o.registration, err = o.provision.Find(s, &o.hub, link, false)
	return err
}

// folder is where the files of the device are that t acts as: those of one that registers do not move
// with it from hub to hub.
func (o *actAsOptions) folder(t target.Target) (string, error) {
	if o.registration == nil {
		return stateFolder(o.state, t)
	}
	all, err := allStates(o.state)
	if err != nil {
		return "", err
	}
	return o.registration.Folder(all), nil
}

// connectAssigned is connectOnce for a device that registers: by the assignment that is kept, or, if
// there is none or its hub refuses the device, by a new one.
func (o *actAsOptions) connectAssigned(ctx context.Context, s output.Streams) (target.Target, *mqttdevice.Client, error) {
	if err := o.register(s); err != nil {
		return target.Target{}, nil, err
	}
	r := o.registration
	folder, err := o.folder(r.Service)
	if err != nil {
		return target.Target{}, nil, err
	}
	kept, err := r.Kept(folder)
	if err != nil {
		return target.Target{}, nil, err
	}
	if kept.Hub != "" {
		t, err := r.Target(kept)
		if err != nil {
			return t, nil, err
		}
		client, err := tryOnce(ctx, t, s)
		if err == nil || ctx.Err() != nil {
			return t, client, err
		}
		if !errors.Is(err, mqttdevice.ErrUnauthorized) {
			return t, nil, t.ExplainDevice(ctx, err)
		}
	}
	given, cancel := context.WithTimeout(ctx, onceTimeout)
	defer cancel()
	a, err := mqttdevice.Register(given, r.RegistrationOptions)
	if err != nil {
		return target.Target{}, nil, r.Explain(ctx, err)
	}
	if err := agent.KeepAssignment(folder, r.RegistrationOptions, a); err != nil {
		s.Note("iotdm: the assignment is not kept: %v", err)
	}
	t, err := r.Target(a)
	if err != nil {
		return t, nil, err
	}
	client, err := connectOnce(ctx, t, s)
	return t, client, err
}

// A life is as whom an agent connects, which may change if it registers.
type life struct {
	registration *provision.Registration // nil: it does not

	mu     sync.Mutex // guards what follows
	target target.Target
	asks   bool // the provisioning service, just now or last
}

// findLife finds the device's hub, or the service that says which it is.
func (o *deviceRunOptions) findLife(ctx context.Context, s output.Streams) (*life, error) {
	if !o.as.provision.Wanted {
		t, err := o.as.find(ctx, s, target.Choice{Create: true, Usual: target.LocalDevice})
		return &life{target: t}, err
	}
	if err := o.as.register(s); err != nil {
		return nil, err
	}
	return &life{registration: o.as.registration, target: o.as.registration.Service}, nil
}

// now is the device as it is known by now.
func (l *life) now() target.Target {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

// provision has the agent register.
func (l *life) provision(opt *agent.Options, log *slog.Logger) {
	r := l.registration
	if r == nil {
		return
	}
	opt.Provision = &agent.Provision{Registration: r.RegistrationOptions, Reach: r.Dial}
	opt.Provision.Registration.OnRetry = func(reason error, retry time.Duration) {
		log.Info("not registered", "reason", reason, "retry", retry.Round(100*time.Millisecond))
	}
}

// changed takes a change of the connection.
func (l *life) changed(state mqttdevice.State) {
	if l.registration == nil {
		return
	}
	var t target.Target
	err := errors.New("not assigned yet")
	if state.Hub != "" {
		t, err = l.registration.Target(mqttdevice.Assignment{Hub: state.Hub, DeviceID: state.Device})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch state.Status {
	case mqttdevice.Provisioning:
		l.asks = true
	case mqttdevice.Connecting:
		l.asks = false
	}
	if err == nil {
		l.target = t
	}
}

// explain words the error that the agent ends with.
func (l *life) explain(ctx context.Context, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asks {
		return l.registration.Explain(ctx, err)
	}
	return l.target.ExplainDevice(ctx, err)
}
