// Package agent is the device that runs on a real machine: it keeps a connection to its hub, answers
// the direct methods that reboot the machine, and reports in its twin what came of them, as the
// tutorial "Get started with device management" has it. Reboots are simulated unless a command is
// given that really reboots. Other commands answer direct methods, carry out desired properties, reset
// the machine, and update its software. Telemetry waits on disk until the hub has it.
//
//	a, err := agent.New(agent.Options{
//		Device:        mqttdevice.Options{ConnectionString: conn},
//		Folder:        "/var/lib/pump", // what a restart must not forget
//		RebootCommand: "systemctl reboot",
//		OnMethod:      map[string]agent.Command{"config": {Args: []string{"cat", "/etc/pump.json"}}},
//		Logger:        slog.Default(),
//	})
//	...
//	defer a.Close()
//	err = a.Connect(ctx)
//	...
//	<-ctx.Done()
//
// A program that is more than an agent has the same connection by [Agent.Client]: there it adds direct
// methods that it answers itself, sends messages, and reads and reports properties.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/iotdm/iotdm/agent/tutorial"
	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

// Options say which device an agent is and what it does. Only Device is needed.
type Options struct {
	// Device says which device this is and how it reaches its hub. Its OnState, if set, hears of each
	// change of the connection after the agent has.
	Device mqttdevice.Options

	// Provision, if set, is asked for the hub and the device, in place of Device.ConnectionString, Addr and
	// WebSocketAddr.
	Provision *Provision

	// RebootDuration is how long a simulated reboot takes; zero is no time at all.
	RebootDuration time.Duration

	// RebootCommand really reboots the machine; the shell runs it. It needs Folder. Empty means that
	// reboots are simulated.
	RebootCommand string

	// RebootGrace is how long after RebootCommand has begun the machine may still be up before that
	// counts as a reboot that did not happen; zero means three minutes.
	RebootGrace time.Duration

	// Boot says which boot the machine is in. Nil asks the kernel.
	Boot func() (Boot, error)

	// OnMethod binds direct methods to commands, by name, and instead of what the agent does for that
	// name. The payload is the command's input and what it prints the answer's payload. The status is
	// 200 if it exits with 0; else 400 for the exit statuses 64 and 65, 403 for 77, 503 for 69 and 75,
	// and 500 for all others, with a payload that has exitCode and the end of stderr. A command that
	// does not end in time, 30 s unless its Timeout says else, is answered 504, one that prints more
	// than 128 KiB or what is not JSON 500, and a call while it runs for another 409, unless it is
	// Concurrent.
	OnMethod map[string]Command

	// OnDesired binds desired properties to commands, by path: names joined by dots. A command gets the
	// value, or null when the property is gone, and is run for one value at a time; of those that come
	// meanwhile the newest counts. What came of it is reported at the same path as {"value", "ac", "av",
	// "ad"}, with what the command printed, or else the desired value, and a code as OnMethod has it. It
	// runs again when the agent starts unless that was reported before; that needs Folder to tell which
	// of several properties has changed meanwhile.
	OnDesired map[string]Command

	// FactoryReset is the command of the direct method factoryReset, which exists if there is one. It
	// needs Folder. The method is answered first; then the command runs, with the payload as its input.
	// The reported property factoryReset says what goes on: its status is resetting, and in the end done,
	// error, or interrupted if the agent ended meanwhile. With the exit status 102 the command asks for a
	// reboot, as that of an Update does. Without a Timeout it may take 30 minutes.
	//
	// A factory reset, a reboot by RebootCommand and the commands of an Update exclude each other: direct
	// methods are answered 409, and an update that has been downloaded waits.
	FactoryReset Command

	// Update makes the agent install software or firmware. It needs Folder.
	Update Update

	// Telemetry is what the agent sends by itself. It needs Folder, where the messages wait until the
	// hub has them; so do those of Queue.
	Telemetry Telemetry

	// OutboxBytes bounds the messages that wait, on disk; zero is 128 MiB. At the bound the oldest are
	// dropped, which the agent logs, and reports as outbox.dropped.
	OutboxBytes int64

	// Folder is where the agent keeps what has to survive a restart. It belongs to this device alone,
	// and is made when it is needed. Empty means that nothing is kept.
	Folder string

	// StatusFile is where other programs of this machine find out how the agent is, in JSON: the
	// connection, the last direct methods, reboots. The file is replaced as a whole, at most once a
	// second and at least every thirty, may be read by everybody and holds no secret. Empty means that there is none.
	StatusFile string

	// OnEvent, if set, is called with what the device has to tell whoever watches it, from several
	// goroutines. It must neither block nor call the agent, which waits for it.
	OnEvent func(Event)

	// Logger hears what an operator may want to know: at Info what the hub asked for and what came of it,
	// at Warn what did not go well, at Error what the agent could not keep or undo. The connection is for
	// Device.Logger. Nil discards.
	Logger *slog.Logger
}

// An Agent is one device. Its methods may be called from any goroutine.
//
// What else it does is added before Connect: handlers of direct methods (handleMethod), properties that
// are acted upon (watchDesired), what is to be done upon each connection, such as to report
// (onConnected), and what goes on all the time, connected or not (background).
type Agent struct {
	opt    Options
	log    *slog.Logger
	client *mqttdevice.Client

	running context.Context // ends when Close begins
	stop    context.CancelFunc
	wg      sync.WaitGroup // every goroutine of the agent
	once    sync.Once      // starts them

	turn     turn
	reboots  *machineReboot // nil: reboots are simulated
	observer *observer      // of desired properties; nil: none is acted upon
	reporter *reporter      // nil if observer is

	status *statusFile

	telemetry *outboxSender // nil without Folder

	connections wait.Signal // there is a new connection
	connected   []func(context.Context) error
	tasks       []func(context.Context)
}

// New returns an agent that is not connected yet. It fails on options that cannot work.
func New(opt Options) (*Agent, error) {
	if opt.OnEvent == nil {
		opt.OnEvent = func(Event) {}
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	device := opt.Device
	name := device.ConnectionString.DeviceID
	if opt.Provision != nil {
		name = opt.Provision.Registration.RegistrationID
	}
	log := opt.Logger.With(logDevice, name)
	if module := device.ConnectionString.ModuleID; module != "" {
		log = log.With(logModule, module)
	}
	a := &Agent{opt: opt, log: log, connections: wait.NewSignal(), turn: newTurn()}
	if opt.Provision != nil {
		device = a.provisioned(device)
	}
	a.opt.Device.ConnectionString = device.ConnectionString
	a.status = newStatusFile(a.opt)
	a.running, a.stop = context.WithCancel(context.Background())
	device.OnState = a.onState
	var err error
	if a.client, err = mqttdevice.New(device); err != nil {
		return nil, err
	}
	if err := a.handleReboots(); err != nil {
		return nil, err
	}
	if err := a.handleCommands(); err != nil {
		return nil, err
	}
	for _, add := range []func() error{a.observeCommands, a.handleUpdates, a.handleFactoryReset, a.handleTelemetry} {
		if err := add(); err != nil {
			return nil, err
		}
	}
	a.handleMethod("", a.unknownMethod)
	if opt.StatusFile != "" {
		a.background(a.keepStatus)
	}
	return a, nil
}

// Client is the agent's connection. It is not to be closed. Handlers of direct methods may be added to
// it, before Connect, under names that the agent has no use for; that of desired properties is the agent's
// if it acts upon any, which an Update and a FactoryReset make it do too.
func (a *Agent) Client() *mqttdevice.Client { return a.client }

// HandleMessages sets the handler of cloud-to-device messages, as [mqttdevice.Client.HandleMessage]
// does. It is for before Connect.
func (a *Agent) HandleMessages(h mqttdevice.MessageHandler) { a.client.HandleMessage(h) }

// Connect connects as [mqttdevice.Client.Connect] does, and fails as that does. From then on the agent
// works until Close.
func (a *Agent) Connect(ctx context.Context) error {
	a.once.Do(func() {
		a.wg.Go(a.serveConnections)
		for _, task := range a.tasks {
			a.wg.Go(func() { task(a.running) })
		}
	})
	return a.client.Connect(ctx)
}

// Close ends what the agent does, sends the answers of methods that are still running, disconnects,
// and returns when every goroutine of the agent has ended. It may be called more than once, and never
// fails.
func (a *Agent) Close() error {
	a.stop()
	a.wg.Wait() // with what is still to be reported
	if a.telemetry != nil {
		a.telemetry.close()
	}
	a.client.Close()
	if a.opt.StatusFile != "" {
		a.writeStatus() // an error has been logged before
	}
	return nil
}

// handleMethod sets the handler of a direct method; an empty name is for all that have none.
func (a *Agent) handleMethod(name string, h mqttdevice.MethodHandler) {
	if a.opt.StatusFile == "" {
		a.client.HandleMethod(name, h)
		return
	}
	a.client.HandleMethod(name, func(ctx context.Context, m mqttdevice.Method) mqttdevice.Response {
		began := time.Now()
		r := h(ctx, m)
		a.status.called(m.Name, began, r.Status)
		return r
	})
}

// onConnected adds fn to what is done upon each connection, one after the other on one goroutine. If it
// fails because the connection broke, it is called again upon the next; any other error is logged.
func (a *Agent) onConnected(fn func(context.Context) error) { a.connected = append(a.connected, fn) }

// background adds a task that runs from Connect on, connected or not, until its context ends.
func (a *Agent) background(task func(context.Context)) { a.tasks = append(a.tasks, task) }

// serveConnections does what is to be done upon each connection.
func (a *Agent) serveConnections() {
	for {
		select {
		case <-a.running.Done():
			return
		case <-a.connections:
		}
		a.status.working(true)
		for _, fn := range a.connected {
			err := fn(a.running)
			if err != nil && a.running.Err() == nil && !errors.Is(err, mqttdevice.ErrConnectionLost) {
				a.log.Warn("the twin cannot be read upon a connection", logError, err)
			}
		}
		a.status.working(false)
	}
}

// onState hears of each change of the connection.
func (a *Agent) onState(state mqttdevice.State) {
	if state.Status == mqttdevice.Connected {
		a.connections.Set()
	}
	a.status.heard(state)
	if a.opt.Device.OnState != nil {
		a.opt.Device.OnState(state)
	}
}

func (a *Agent) unknownMethod(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
	a.log.Info("unknown direct method", logMethod, m.Name)
	return tutorial.Response(404, "Unknown method")
}
