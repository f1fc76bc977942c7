package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/fleet"
)

// fleetOptions are the flags of "device run" for many devices at once.
type fleetOptions struct {
	count           int
	prefix, file    string
	create, cleanup bool

	behavior                                fleet.Options // as far as its fields are of a flag's type
	failRate, slowRate, offlineRate, jitter share
	answerDelay, offlineDuration            command.Seconds
	seed                                    int64

	seedSet bool
	anyWay  bool // to the hub: --transport auto, if the user says so

	output output.Options
}

func newFleetOptions() fleetOptions {
	return fleetOptions{prefix: "device-", answerDelay: command.Seconds(10 * time.Second), offlineDuration: command.Seconds(30 * time.Second)}
}

func (o *fleetOptions) flags() []urfave.Flag {
	const category = "Many devices"
	number := func(name string, to *share, usage string) urfave.Flag {
		return &urfave.GenericFlag{Name: name, Category: category, Value: to, Usage: usage}
	}
	duration := func(name string, to *command.Seconds, usage string) urfave.Flag {
		return &urfave.GenericFlag{Name: name, Category: category, Value: to, Usage: usage}
	}
	is := func(name string, to *bool, usage string) urfave.Flag {
		return &urfave.BoolFlag{Name: name, Category: category, Destination: to, DisableDefaultText: true, Usage: usage}
	}
	return command.Concat([]urfave.Flag{
		&urfave.IntFlag{Name: "count", Category: category, Destination: &o.count, DefaultText: "1",
			Usage: "be `N` devices at once, to test what is behind the hub"},
		&urfave.StringFlag{Name: "id-prefix", Category: category, Destination: &o.prefix, Value: o.prefix,
			Usage: "be the devices `TEXT`1, TEXT2, ..."},
		&urfave.StringFlag{Name: "connection-strings", Category: category, Destination: &o.file,
			Usage: "be the devices whose connection strings are the lines of `FILE` (- is standard input)"},
		is("create", &o.create, "register missing devices on a hub that is not the local one, too"),
		is("cleanup", &o.cleanup, "at the end delete the devices that were registered for a fleet"),
		&urfave.Float64Flag{Name: "ramp-up", Category: category, Destination: &o.behavior.RampUp, DefaultText: "as fast as the hub takes them",
			Usage: "begin with `N` devices per second"},
		number("fail-rate", &o.failRate, "answer this `SHARE` of the methods, such as 0.05 or 5%, with status 500"),
		number("slow-rate", &o.slowRate, "answer this `SHARE` of the methods late"),
		duration("answer-delay", &o.answerDelay, "how `LONG` --slow-rate delays an answer"),
		number("offline-rate", &o.offlineRate, "be away for this `SHARE` of the time, at random"),
		duration("offline-duration", &o.offlineDuration, "how `LONG` --offline-rate keeps a device away, on average"),
		is("reboot-offline", &o.behavior.RebootOffline, "answer a reboot first, and be disconnected while it lasts"),
		is("report-desired", &o.behavior.ReportDesired, "report desired properties back as they come"),
		number("jitter", &o.jitter, "vary intervals, delays and reboots by this `SHARE`, up and down"),
		&urfave.Int64Flag{Name: "seed", Category: category, Destination: &o.seed, DefaultText: "random, and printed at the end",
			Usage: "fail, be slow and be away as with the same `NUMBER` before"},
	}, o.output.Flags())
}

// fleetOnly are the flags that say nothing about one device, apart from those that make a fleet.
var fleetOnly = []string{"id-prefix", "create", "cleanup", "ramp-up", "fail-rate", "slow-rate", "answer-delay",
	"offline-rate", "offline-duration", "reboot-offline", "report-desired", "jitter", "seed", "output", "jq"}

// fleetToo are the flags of a single device that a fleet takes.
var fleetToo = []string{"config", "log-format", "count", "connection-strings", "connection-string", "data", "provision", "provisioning-host", "provisioning-payload", "id-scope", "enrollment-group-key", "ca-file", "transport", "model-id", "telemetry-interval", "telemetry-template", "reboot-duration", "verbose"}

// wanted reports whether the command line is about a fleet, or what is wrong with it.
func (o *fleetOptions) wanted(ctx *urfave.Context) (bool, error) {
	o.seedSet, o.anyWay = ctx.IsSet("seed"), given(ctx, "transport")
	if !ctx.IsSet("count") && o.file == "" {
		for _, name := range fleetOnly {
			if given(ctx, name) {
				return false, fail.Usagef("--%s goes with --count, for many devices", name)
			}
		}
		return false, nil
	}
	for _, f := range ctx.Command.Flags {
		name := f.Names()[0]
		if given(ctx, name) && !slices.Contains(fleetOnly, name) && !slices.Contains(fleetToo, name) {
			return true, fail.Usagef("--%s is for one device; leave it out, or --count", name)
		}
	}
	switch {
	case ctx.IsSet("count") && o.count < 1:
		return true, fail.Usagef("--count %d: a fleet has at least one device", o.count)
	case o.file == "" && o.prefix == "":
		return true, fail.Usagef("--id-prefix is empty; ids would be bare numbers")
	case o.file != "" && (given(ctx, "id-prefix") || o.create || o.cleanup):
		return true, fail.Usagef("--connection-strings names devices that exist; leave out --id-prefix, --create and --cleanup")
	case o.file != "" && given(ctx, "provision"):
		return true, fail.Usagef("--connection-strings names devices of a hub, and --provision finds one; give one of them")
	case given(ctx, "provision") && (o.create || o.cleanup):
		return true, fail.Usagef("the provisioning service makes the devices; leave out --create and --cleanup")
	case o.file != "" && given(ctx, "connection-string"):
		return true, fail.Usagef("give only one of --connection-string and --connection-strings")
	case !(o.behavior.RampUp >= 0):
		return true, fail.Usagef("--ramp-up %v is less than 0", o.behavior.RampUp)
	case o.offlineRate == 1:
		return true, fail.Usagef("--offline-rate 1 leaves the devices no time to be connected")
	case o.seed < 0:
		return true, fail.Usagef("--seed %d is less than 0", o.seed)
	}
	return true, o.output.Check()
}

// given reports whether the flag stands on the command line. An environment variable does not count: it is for
// every command of the user.
func given(ctx *urfave.Context, name string) bool {
	if !ctx.IsSet(name) {
		return false
	}
	f, ok := command.FlagNamed(ctx.Command, name).(urfave.DocGenerationFlag)
	return !ok || !slices.ContainsFunc(f.GetEnvVars(), func(v string) bool { return os.Getenv(v) != "" })
}

// runFleet plays devices until ctx ends.
func runFleet(ctx context.Context, s output.Streams, o deviceRunOptions) error {
	if err := checkDescriptors(o.fleet.count); err != nil { // before thousands are registered
		return err
	}
	b := o.fleet.behavior
	if err := o.telemetry.simulate(s, &b); err != nil {
		return err
	}
	view := newFleetView(s, o.as.hub.Log == nil, o.log)
	s = view.Streams
	devices, err := o.fleetDevices(ctx, s)
	if err != nil {
		return err
	}
	if err := checkDescriptors(len(devices.options)); err != nil { // now those of a file are counted
		return err
	}
	b.Devices = devices.options
	b.RebootDuration = time.Duration(o.rebootDuration)
	b.FailRate, b.SlowRate, b.OfflineRate, b.Jitter = float64(o.fleet.failRate), float64(o.fleet.slowRate), float64(o.fleet.offlineRate), float64(o.fleet.jitter)
	b.AnswerDelay, b.OfflineDuration = time.Duration(o.fleet.answerDelay), time.Duration(o.fleet.offlineDuration)
	if b.Seed = uint64(o.fleet.seed); !o.fleet.seedSet {
		b.Seed = rand.Uint64N(1e9) // easy to type
	}
	b.OnTrouble = view.trouble
	f, err := fleet.New(b)
	if err != nil {
		return fail.Errorf(fail.Failed, "%v", err)
	}
	limitMemory(len(devices.options))
	ended := view.follow(f, devices.host)
	err = f.Run(ctx)
	ended()
	switch {
	case err != nil && devices.registration != nil:
		err = devices.registration.Explain(ctx, err)
	case err != nil:
		err = devices.target.ExplainDevice(ctx, err)
	default:
		err = o.fleet.output.Print(s, output.Result{Value: f.Stats()})
	}
	return errors.Join(err, devices.leave(context.WithoutCancel(ctx), s, o.fleet.cleanup))
}

// limitMemory has the garbage collector try harder before a fleet takes more than 1 GiB for 10,000 devices,
// unless the user has other ideas.
func limitMemory(devices int) {
	const program, device = 64 << 20, 90 << 10
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(program + int64(devices)*device)
	}
}

// A share is the value of a flag between 0 and 1: "0.05" or "5%".
type share float64

func (v *share) Set(text string) error {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.ParseFloat(number, 64)
	if percent {
		n /= 100
	}
	if err != nil || !(n >= 0 && n <= 1) {
		return fmt.Errorf("is not a share between 0 and 1, such as 0.05 or 5%%")
	}
	*v = share(n)
	return nil
}

func (v *share) String() string { return strconv.FormatFloat(float64(*v), 'g', -1, 64) }
