package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/localhub"
	"github.com/iotdm/iotdm/cli/internal/logs"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/systemd"
	"github.com/iotdm/iotdm/cli/internal/webconsole"
	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
)

const (
	defaultMQTTSAddr = "127.0.0.1:" + localhub.MQTTSPort
	defaultHTTPSAddr = "127.0.0.1:" + localhub.HTTPSPort
	defaultAMQPSAddr = "127.0.0.1:" + localhub.AMQPSPort
)

type hubRunOptions struct {
	mqttsAddr, httpsAddr, amqpsAddr string
	httpsExplicit, amqpsExplicit    bool
	mqttAddr, amqpAddr, healthAddr  string
	hosts                           urfave.StringSlice
	data                            string
	ephemeral                       bool
	seed, entra                     string
	consumerGroups                  urfave.StringSlice
	eventHubSources                 urfave.StringSlice
	maxJobs                         int
	testControls                    bool
	console                         bool
	consoleAddr                     string
	provisioning                    provisioningOptions
	cluster                         clusterOptions
	clusterMonitor, node            string
	drain                           command.Seconds
	verbose                         bool
	log                             logs.Options
}

func hubRunCommand(s output.Streams) *urfave.Command {
	var o hubRunOptions
	return command.Leaf(&urfave.Command{
		Name:  "run",
		Usage: "run a hub until Ctrl-C",
		Description: "Listens for MQTT and AMQP over TLS, and for REST and both of them over WebSocket. Who may not listen\n" +
			"on port 443 gets 8443; on Linux this allows 443, which SDKs have built in:\n" +
			"   sudo setcap cap_net_bind_service=+ep $(which iotdm)\n" +
			"In a container it is --sysctl net.ipv4.ip_unprivileged_port_start=0 of docker or podman run.\n" +
			"Where another program has port 5671, AMQP gets a free one.\n\n" +
			"A seed has policies, devices, configurations and consumer groups (\"iotdm help seed\"); what the hub\n" +
			"has already stays as it is.\n\n" +
			"Clients of Event Hubs read what devices send (see \"iotdm hub connection-string --event-hub\"). With\n" +
			"--amqp-addr 127.0.0.1:5672 they can do so as from Event Hubs' emulator, without a certificate.\n\n" +
			"Devices can ask it for their hub, as of a Device Provisioning Service, which \"iotdm service enrollment\"\n" +
			"manages; \"iotdm hub status\" prints its id scope.\n\n" +
			"Connection strings have the first --host; without one the address the hub listens on where\n" +
			"\"localhost\" does not lead to it, else localhost. AMQP follows the others to a loopback address.\n\n" +
			"C, Java and .NET SDKs refuse a host name without a dot. For them put \"127.0.0.1 iotdm.localhost\"\n" +
			"into the hosts file, and give that --host. For example:\n" +
			"   iotdm hub run\n" +
			"   iotdm hub run --mqtts-addr 127.0.0.2:8883 --https-addr 127.0.0.2:443 --data second\n" +
			"   iotdm hub run --ephemeral --seed devices.yaml --mqtts-addr 127.0.0.1:0 --https-addr 127.0.0.1:0",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "mqtts-addr", Destination: &o.mqttsAddr, Value: defaultMQTTSAddr, EnvVars: []string{"IOTDM_HUB_MQTTS_ADDR"},
				Usage: "MQTT over TLS; port 0 of `HOST:PORT` is any"},
			&urfave.StringFlag{Name: "https-addr", Destination: &o.httpsAddr, Value: defaultHTTPSAddr, EnvVars: []string{"IOTDM_HUB_HTTPS_ADDR"},
				Usage: "REST, MQTT and AMQP over WebSocket, on `HOST:PORT`"},
			&urfave.StringFlag{Name: "amqps-addr", Destination: &o.amqpsAddr, Value: defaultAMQPSAddr, EnvVars: []string{"IOTDM_HUB_AMQPS_ADDR"},
				Usage: "AMQP over TLS, on `HOST:PORT`; empty is none"},
			&urfave.StringFlag{Name: "mqtt-addr", Destination: &o.mqttAddr, EnvVars: []string{"IOTDM_HUB_MQTT_ADDR"},
				Usage: "also MQTT without TLS, on `HOST:PORT`"},
			&urfave.StringFlag{Name: "amqp-addr", Destination: &o.amqpAddr, EnvVars: []string{"IOTDM_HUB_AMQP_ADDR"},
				Usage: "also AMQP without TLS, on `HOST:PORT`"},
			&urfave.StringFlag{Name: "health-addr", Destination: &o.healthAddr, EnvVars: []string{"IOTDM_HUB_HEALTH_ADDR"},
				Usage: "answer /health, /ready, /metrics and /ca.pem to anybody by HTTP on `HOST:PORT`"},
			&urfave.StringSliceFlag{Name: "host", Destination: &o.hosts, EnvVars: []string{"IOTDM_HUB_HOST"},
				Usage: "a `NAME` or address of the hub, repeatable; the first is in connection strings"},
			&urfave.StringFlag{Name: "data", Destination: &o.data, EnvVars: []string{"IOTDM_HUB_DATA", "IOTDM_DATA"},
				Usage: "keep everything in `FOLDER`"},
			&urfave.BoolFlag{Name: "ephemeral", Destination: &o.ephemeral, DisableDefaultText: true, EnvVars: []string{"IOTDM_HUB_EPHEMERAL"},
				Usage: "keep devices and twins in memory only"},
			&urfave.StringFlag{Name: "seed", Destination: &o.seed, EnvVars: []string{"IOTDM_HUB_SEED"},
				Usage: "create what `FILE` (YAML, JSON) has and the hub lacks, see \"iotdm help seed\""},
			&urfave.StringFlag{Name: "entra", Destination: &o.entra, EnvVars: []string{"IOTDM_HUB_ENTRA"},
				Usage: "accept the Entra ID tokens that `FILE` (YAML or JSON) describes"},
			&urfave.StringSliceFlag{Name: "consumer-group", Destination: &o.consumerGroups, EnvVars: []string{"IOTDM_HUB_CONSUMER_GROUP"},
				Usage: "a further consumer group `NAME` for readers of events, repeatable"},
			&urfave.StringSliceFlag{Name: "event-hub-sources", Destination: &o.eventHubSources, EnvVars: []string{"IOTDM_HUB_EVENT_HUB_SOURCES"},
				Usage: "have clients of Event Hubs read `SOURCES` of telemetry,twin,lifecycle,connection (default: telemetry)"},
			&urfave.IntFlag{Name: "max-jobs", Destination: &o.maxJobs, Value: 10, EnvVars: []string{"IOTDM_HUB_MAX_JOBS"},
				Usage: "run up to `N` jobs at a time"},
			&urfave.BoolFlag{Name: "console", Destination: &o.console, DisableDefaultText: true, EnvVars: []string{"IOTDM_HUB_CONSOLE"},
				Usage: "serve the console too, for browsers of this machine, see \"iotdm console\""},
			&urfave.StringFlag{Name: "console-addr", Destination: &o.consoleAddr, Value: webconsole.DefaultAddr, EnvVars: []string{"IOTDM_HUB_CONSOLE_ADDR"},
				Usage: "where, on `HOST:PORT` of this machine"},
		}, o.provisioning.flags(), o.cluster.flags(), []urfave.Flag{
			monitorFlag(&o.clusterMonitor),
			&urfave.StringFlag{Name: "node", Destination: &o.node, EnvVars: []string{"IOTDM_HUB_NODE"}, Category: "Several nodes",
				Usage: "the `NAME` of this node, which no other has (default: that of the machine)"},
			&urfave.GenericFlag{Name: "drain", Value: &o.drain, EnvVars: []string{"IOTDM_HUB_DRAIN"}, Category: "Several nodes",
				Usage: "say so `LONG` on --health-addr that this node stops, before it does"},
		}, []urfave.Flag{
			&urfave.BoolFlag{Name: "test-controls", Destination: &o.testControls, DisableDefaultText: true, EnvVars: []string{"IOTDM_HUB_TEST_CONTROLS"},
				Usage: "let who has all rights reset the hub, move its clock and the like"},
			&urfave.BoolFlag{Name: "verbose", Destination: &o.verbose, DisableDefaultText: true, EnvVars: []string{"IOTDM_HUB_VERBOSE"},
				Usage: "log every packet and request"},
			o.log.Flag("IOTDM_HUB_LOG_FORMAT"),
		}),
		Action: func(ctx *urfave.Context) error {
			if o.maxJobs < 1 {
				return fail.Usagef("--max-jobs %d: a hub runs at least one job at a time", o.maxJobs)
			}
			for _, name := range o.consumerGroups.Value() {
				if err := hub.ValidateConsumerGroup(name); err != nil && !strings.EqualFold(name, hub.DefaultConsumerGroup) {
					return fail.Usagef("--consumer-group: %v", err)
				}
			}
			if o.cluster.url != "" && o.console {
				return fail.Usagef("--console is for a hub of a single node; beside a node of several run \"iotdm console\", which finds it")
			}
			if err := o.cluster.checkMonitor(o.clusterMonitor); err != nil {
				return err
			}
			if err := o.log.Check(); err != nil {
				return err
			}
			sources, err := parseSources("--event-hub-sources", o.eventHubSources.Value())
			if err != nil {
				return err
			}
			o.httpsExplicit, o.amqpsExplicit = ctx.IsSet("https-addr"), ctx.IsSet("amqps-addr")
			return runHub(ctx.Context, s, o, sources)
		},
	})
}

func runHub(ctx context.Context, s output.Streams, o hubRunOptions, sources []hubrest.EventSource) error {
	manager, err := systemd.FindManager()
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(o.log.Handler(s, level))
	s = o.log.Streams(s)
	dir, err := localhub.Folder(o.data)
	if err != nil {
		return err
	}
	seed, err := readSeed(o.seed)
	if err != nil {
		return err
	}
	principals, err := readEntra(o.entra)
	if err != nil {
		return err
	}
	var opt node.Options
	if err := o.provisioning.set(s, &opt); err != nil {
		return err
	}
	// Listening comes first: a port that is taken must leave no trace on disk.
	on, notes, err := o.listen()
	var health net.Listener
	if err == nil && o.healthAddr != "" {
		health, err = o.listenOn("--health-addr", o.healthAddr)
	}
	var browsers net.Listener
	if err == nil && o.console {
		browsers, err = o.listenForBrowsers()
	}
	if err != nil {
		on.Close()
		return err
	}
	if browsers != nil {
		defer browsers.Close() // unless it is served until then
	}
	storage := node.Folder(dir)
	if o.ephemeral {
		storage = node.KeysFolder(dir)
	}
	opt.Storage, opt.HostNames = storage, on.Names(o.hosts.Value())
	opt.Seed, opt.Entra = seed, principals
	opt.ConsumerGroups, opt.MaxJobs = o.consumerGroups.Value(), o.maxJobs
	opt.Logger, opt.TestControls, opt.Health = log, o.testControls, health
	for _, source := range sources {
		opt.EventHubSources = append(opt.EventHubSources, hub.EventSource(source))
	}
	if o.cluster.url != "" {
		r := &clusterRun{s: s, o: o, log: log, opt: opt, manager: manager, dir: dir, notes: notes, on: on, health: health}
		return r.run(ctx)
	}
	n, err := node.New(opt)
	if err != nil {
		on.Close()
		hint := ""
		if errors.Is(err, node.ErrDamaged) {
			hint = fmt.Sprintf("; \"iotdm hub check --data %s\" says what can be read, and saves it", command.ShellQuote(dir))
		}
		return fail.Errorf(fail.Failed, "%v%s", err, hint)
	}
	info := on.Info(on.HostName(o.hosts.Value()))
	if health != nil {
		info.HealthAddr = health.Addr().String()
	}
	if err := n.Publish(info); err != nil {
		on.Close()
		return errors.Join(fail.Errorf(fail.Failed, "%v", err), n.Close())
	}
	var pages *webconsole.Server
	if browsers != nil {
		if pages, err = o.serveConsole(s, browsers, dir, log); err != nil {
			on.Close()
			return errors.Join(err, n.Close())
		}
		defer pages.Close()
		notes = append(notes, consoleNotes(s, pages)...)
	}
	o.greet(s, info, dir, notes)
	// Whoever connects since the ports are open waits until here. What is
	// printed from now on is the log.
	failed := n.Serve(on)
	manager.Ready()
	watched := watchHub(ctx, s, n, manager)
	if pages != nil {
		pages.OfferLinks(ctx, s, "")
	}
	select {
	case <-ctx.Done():
		s.Note("Stopping ...")
	case err = <-failed:
	}
	watched()
	manager.Stopping()
	return errors.Join(err, stopHub(s, n))
}

// watchHub gives the service manager signs of life and a status, until the
// function that it returns is called. A hub whose rules hang gives none.
func watchHub(ctx context.Context, s output.Streams, n *node.Node, manager systemd.Manager) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	alive := func() error {
		manager.Status(output.Count(n.ConnectedDevices(), "connected device"))
		return nil
	}
	alive()
	go func() {
		defer close(ended)
		manager.Watch(ctx, alive, s.Note)
	}()
	return func() { cancel(); <-ended }
}

// stopHub gives what is in flight some time to finish. A direct method may
// take five minutes, which is more than who stops a hub wants to wait. Nor is a
// disk waited for that does not answer: what was acknowledged is on it.
func stopHub(s output.Streams, n *node.Node) error {
	const (
		patience = 10 * time.Second
		grace    = 2 * time.Second
	)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- n.Shutdown(ctx) }()
	var err error
	select {
	case err = <-ended:
	case <-time.After(patience + grace):
		return fail.Errorf(fail.Failed, "stop the hub: it has not ended after %v, as when the disk does not answer; everything that was acknowledged is kept", patience+grace)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.Note("Stopped after %v, with requests in flight", patience)
		return nil
	}
	if err != nil {
		return fail.Errorf(fail.Failed, "stop the hub: %v", err)
	}
	return nil
}

// greet says where the hub listens and what to do next, and then that it is ready.
func (o *hubRunOptions) greet(s output.Streams, info node.Info, dir string, notes []string) {
	s.Print("The hub listens for")
	for _, door := range []struct{ what, addr string }{
		{"MQTT over TLS", info.MQTTSAddr},
		{"AMQP over TLS", info.AMQPSAddr},
		{"REST, MQTT and AMQP over WebSocket", info.HTTPSAddr},
		{"MQTT without TLS", info.MQTTAddr},
		{"AMQP without TLS", info.AMQPAddr},
		{"health checks, over HTTP", info.HealthAddr},
	} {
		if door.addr != "" {
			s.Print("  %-36s%s", door.what, door.addr)
		}
	}
	if info.HostName != "localhost" {
		s.Print("is called %s in connection strings,", info.HostName)
	}
	s.Print("and keeps its keys%s in %s", phrase.Choose(o.ephemeral, "", " and state"), dir)
	if o.testControls {
		s.Print("Test controls are on: who has a key of iothubowner can reset the hub and move its clock.")
	}
	for _, note := range notes {
		s.Print("%s", note)
	}
	s.Print("")
	s.Print("Next, in another terminal:")
	if usual, err := node.DefaultFolder(); err != nil || dir != usual {
		s.Print("  export IOTDM_DATA=%s", command.ShellQuote(dir))
	}
	s.Print("  iotdm device run                          be the device device-1")
	s.Print("  iotdm service reboot --device device-1    reboot it")
	s.Print("  eval \"$(iotdm hub env)\"                   for programs with an official SDK")
	if !strings.Contains(info.HostName, ".") {
		s.Print("C, Java and .NET SDKs want a host name with a dot; see \"iotdm hub run --help\".")
	}
	fmt.Fprintln(s.Out, "ready")
}
