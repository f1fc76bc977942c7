package hub

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func faultCommands(s output.Streams) *urfave.Command {
	return command.Group("fault", "have things go wrong in a hub under test",
		faultAddCommand(s), faultListCommand(s), faultClearCommand(s))
}

type faultAddOptions struct {
	target.Service
	fault                      hubrest.Fault
	latency, retryAfter, lasts command.Seconds
}

func faultAddCommand(s output.Streams) *urfave.Command {
	var o faultAddOptions
	return command.Leaf(&urfave.Command{
		Name:  "add",
		Usage: "add a fault, which strikes from now on",
		Description: "A fault is on one point, does one thing, and ends when it has struck --count times, when --for is\n" +
			"over, or when it is cleared. Of several the one that was added first strikes, until it has ended.\n" +
			"On connection --drop cuts those that there are, too. What each does over MQTT, AMQP and HTTPS is in\n" +
			"docs/TEST-CONTROLS.md:\n" +
			"   connection    a device that connects: latency, status, drop, refuse\n" +
			"   registration  a device that registers with the provisioning service: the same\n" +
			"   telemetry     a device's message: latency, status, drop\n" +
			"   twin          a device that gets its twin or reports: latency, status, drop\n" +
			"   method        a direct method: latency, status, drop\n" +
			"   message       a cloud-to-device message: latency, drop; status for its sender\n" +
			"   rest          any request over HTTPS: latency, status, drop\n" +
			"   tls           a new TLS connection: expired-certificate\n" +
			"For example:\n" +
			"   iotdm hub fault add --on telemetry --device device-1 --latency 2s --for 1m\n" +
			"   iotdm hub fault add --on rest --path 'twins/*/methods' --status 429 --retry-after 5s --count 3\n" +
			"   iotdm hub fault add --on connection --drop --where \"tags.site = 'north'\" --count 1",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "on", Destination: &o.fault.On, Usage: "the `POINT`: connection, registration, telemetry, twin, method, message, rest or tls"},
			command.DeviceFlag(&o.fault.DeviceID, "only the device `ID` and its modules"),
			command.ModuleFlag(&o.fault.ModuleID, "only the module `ID` of the device"),
			&urfave.StringFlag{Name: "where", Destination: &o.fault.Where, Usage: "only devices that meet the query `CONDITION`"},
			&urfave.StringFlag{Name: "path", Destination: &o.fault.Path, Usage: "only requests to `PATH` and below it, such as 'twins/*/methods'"},
			&urfave.GenericFlag{Name: "latency", Value: &o.latency, DefaultText: "none", Usage: "answer or deliver so much `LATER`"},
			&urfave.IntFlag{Name: "status", Destination: &o.fault.Status, DefaultText: "none", Usage: "answer with the error that has the HTTP `STATUS`"},
			&urfave.GenericFlag{Name: "retry-after", Value: &o.retryAfter, DefaultText: "1s", Usage: "with --status 429 or 503: `WHEN` to try again"},
			&urfave.BoolFlag{Name: "drop", Destination: &o.fault.Drop, DisableDefaultText: true, Usage: "lose it, or the connection"},
			&urfave.BoolFlag{Name: "refuse", Destination: &o.fault.Refuse, DisableDefaultText: true, Usage: "refuse the credential"},
			&urfave.BoolFlag{Name: "expired-certificate", Destination: &o.fault.ExpiredCertificate, DisableDefaultText: true, Usage: "show an expired certificate"},
			&urfave.IntFlag{Name: "count", Destination: &o.fault.Count, DefaultText: "until it is cleared", Usage: "strike `N` times"},
			&urfave.GenericFlag{Name: "for", Value: &o.lasts, DefaultText: "until it is cleared", Usage: "how `LONG`, by the hub's clock"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			f := o.fault
			f.Latency, f.RetryAfter, f.For = seconds(o.latency), seconds(o.retryAfter), seconds(o.lasts)
			return o.Call(ctx.Context, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
				added, err := client.AddFault(ctx, f)
				return output.Result{Value: added, Text: func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "Added fault %d: %s\n", added.ID, faultText(added))
					return err
				}}, err
			})
		},
	})
}

// Check refuses what the hub would, where it is clear what is missing.
func (o *faultAddOptions) Check() error {
	effects := 0
	for _, has := range []bool{o.latency != 0, o.fault.Status != 0, o.fault.Drop, o.fault.Refuse, o.fault.ExpiredCertificate} {
		if has {
			effects++
		}
	}
	switch {
	case o.fault.On == "":
		return fail.Usagef("--on is missing: connection, registration, telemetry, twin, method, message, rest or tls")
	case effects == 0:
		return fail.Usagef("what is to go wrong? give --latency, --status, --drop, --refuse or --expired-certificate")
	case effects > 1:
		return fail.Usagef("a fault does one thing; add another one for the rest")
	case o.fault.ModuleID != "" && o.fault.DeviceID == "":
		return command.MissingDevice
	}
	return o.Service.Check()
}

func seconds(d command.Seconds) float64 { return time.Duration(d).Seconds() }

func duration(seconds float64) string {
	d := command.Seconds(seconds * float64(time.Second))
	return d.String()
}

// faultText says what a fault does, to whom and for how long.
func faultText(f hubrest.ActiveFault) string {
	text := f.On + ", " + faultEffect(f)
	if whom := faultTarget(f); whom != "everyone" {
		text += ", for " + whom
	}
	if f.Count > 0 {
		text += ", " + output.Count(f.Count, "time")
	}
	switch {
	case f.Until != nil:
		text += ", until " + f.Until.UTC().Format(time.RFC3339)
	case f.Count == 0:
		text += ", until it is cleared"
	}
	return text
}

func faultEffect(f hubrest.ActiveFault) string {
	switch {
	case f.Latency > 0:
		return "latency " + duration(f.Latency)
	case f.Status > 0 && f.RetryAfter > 0:
		return fmt.Sprintf("status %d, retry after %s", f.Status, duration(f.RetryAfter))
	case f.Status > 0:
		return "status " + strconv.Itoa(f.Status)
	case f.Drop:
		return "drop"
	case f.Refuse:
		return "refuse"
	}
	return "expired certificate"
}

func faultTarget(f hubrest.ActiveFault) string {
	var parts []string
	if f.DeviceID != "" {
		parts = append(parts, strings.TrimSuffix(f.DeviceID+"/"+f.ModuleID, "/"))
	}
	if f.Where != "" {
		parts = append(parts, f.Where)
	}
	if f.Path != "" {
		parts = append(parts, f.Path)
	}
	if parts == nil {
		return "everyone"
	}
	return strings.Join(parts, ", ")
}

// faultStruck says how often a fault has struck, and whether it has ended.
func faultStruck(f hubrest.ActiveFault) string {
	text := strconv.Itoa(f.Struck)
	if f.Count > 0 {
		text += fmt.Sprintf(" of %d", f.Count)
	}
	if f.Left != nil && *f.Left == 0 {
		text += ", ended"
	}
	return text
}

// printFaults prints a fault a line, for people.
func printFaults(w io.Writer, list []hubrest.ActiveFault) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tON\tSTRUCK\tDOES\tTO")
	for _, f := range list {
		does := faultEffect(f)
		if f.Until != nil {
			does += ", until " + f.Until.Local().Format(time.TimeOnly)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", f.ID, f.On, faultStruck(f), does, output.OneLine(faultTarget(f)))
	}
	t.Flush()
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, output.Cut(w, strings.TrimSuffix(line, "\n"))); err != nil {
			return err
		}
	}
	return nil
}

func faultListCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return target.OneCall(s, &urfave.Command{
		Name:  "list",
		Usage: "print the faults, and how often each has struck",
		Description: "Those that have ended are listed too, until they are cleared. With --output json each is\n" +
			"what can be sent to the hub again. For example:\n   iotdm hub fault list",
	}, &o, func(ctx context.Context, client *hubrest.Client) (any, error) {
		list, err := client.Faults(ctx)
		return output.Result{
			Value:   list,
			Columns: []output.Column{{"ID", "id"}, {"ON", "on"}, {"DEVICE", "deviceId"}, {"STRUCK", "struck"}, {"LEFT", "left"}, {"UNTIL", "until"}},
			Text: func(w io.Writer) error {
				if len(list) > 0 {
					return printFaults(w, list)
				}
				s.Note("There are no faults")
				return nil
			},
		}, err
	})
}

func faultClearCommand(s output.Streams) *urfave.Command {
	var o target.Service
	return command.Leaf(&urfave.Command{
		Name:      "clear",
		Usage:     "remove a fault, or all",
		ArgsUsage: "[FAULT]",
		Description: "FAULT is the number that \"fault list\" prints. For example:\n" +
			"   iotdm hub fault clear\n" +
			"   iotdm hub fault clear 2",
		Flags: o.Flags(),
		Action: func(ctx *urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			id := 0
			if text := ctx.Args().First(); text != "" {
				var err error
				if id, err = strconv.Atoi(text); err != nil || id < 1 {
					return fail.Usagef("%q is not the number of a fault; \"iotdm hub fault list\" prints them", text)
				}
			}
			return o.Call(ctx.Context, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
				if id > 0 {
					err := client.ClearFault(ctx, id)
					return output.Result{Value: map[string]int{"cleared": 1}, Text: notes(s, "Cleared fault %d", id)}, err
				}
				n, err := client.ClearFaults(ctx)
				return output.Result{Value: map[string]int{"cleared": n}, Text: notes(s, "Cleared %s", output.Count(n, "fault"))}, err
			})
		},
	})
}

// notes is the text of a result that is said beside the output, of which there is none.
func notes(s output.Streams, format string, args ...any) func(io.Writer) error {
	return func(io.Writer) error {
		s.Note(format, args...)
		return nil
	}
}
