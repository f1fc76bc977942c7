package service

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
)

func configurationCommands(s output.Streams) *urfave.Command {
	return command.Group("configuration", "set desired properties of all twins that a condition chooses",
		configurationCreateCommand(s), configurationGetCommand(s), configurationListCommand(s),
		configurationUpdateCommand(s), configurationDeleteCommand(s), configurationTestCommand(s),
		configurationApplyCommand(s))
}

// configurationColumns are what the table of configurations shows.
var configurationColumns = []output.Column{
	{"CONFIGURATION", "id"}, {"PRIORITY", "priority"}, {"TARGET", "targetCondition"},
	{"TARGETED", "systemMetrics.results.targetedCount"}, {"APPLIED", "systemMetrics.results.appliedCount"}, {"CREATED", "createdTimeUtc"},
}

// configurationOptions are those of all commands about one configuration.
type configurationOptions struct {
	target.Service
	id          string
	content     string
	target      string
	priority    int
	labels      string
	metrics     string
	etag        string
	targetSet   bool
	prioritySet bool
	ifMissing   bool
	ifExists    bool
	guard       guard
}

// configurationCommand makes a command about configurations, which are its
// arguments or --config-id.
func configurationCommand(s output.Streams, c *urfave.Command, flags func(*configurationOptions) []urfave.Flag, run func(context.Context, *hubrest.Client, configurationOptions) (any, error)) *urfave.Command {
	var o configurationOptions
	c.ArgsUsage = cmp.Or(c.ArgsUsage, "[CONFIGURATION]")
	c.Flags = command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: "config-id", Aliases: []string{"c"}, Destination: &o.id, Usage: "the configuration's `ID`, instead of the argument"},
	}, flags(&o), o.Flags())
	c.Action = func(ctx *urfave.Context) error {
		if o.id == "" {
			return fail.Usagef("CONFIGURATION is missing; see \"iotdm service configuration list\"")
		}
		o.targetSet, o.prioritySet = ctx.IsSet("target-condition"), ctx.IsSet("priority")
		for flag, value := range map[string]*string{"--content": &o.content, "--labels": &o.labels, "--metrics": &o.metrics} {
			if *value == "" {
				continue
			}
			object, err := command.ReadObject(s, flag, *value)
			if err != nil {
				return err
			}
			*value = string(object)
		}
		if err := o.Output.Check(); err != nil {
			return err
		}
		columns := configurationColumns
		if c.Name == "delete" {
			columns = nil
		}
		return o.Each(ctx, s, target.Errand{Columns: columns, Explain: explainConfiguration, Call: func(ctx context.Context, client *hubrest.Client, _ string) (any, error) {
			return run(ctx, client, o)
		}})
	}
	return command.Leaf(c)
}

// explainConfiguration is Target.Explain for a request about a configuration.
func explainConfiguration(ctx context.Context, t target.Target, err error, id string) error {
	answer, ok := asAnswer(err)
	switch {
	case !ok:
	case answer.Status == 404:
		return fail.Errorf(fail.NotFound, "configuration %s does not exist on %s; see \"iotdm service configuration list\"", id, t.Host())
	case answer.Status == 409:
		return fail.Errorf(fail.Failed, "configuration %s exists already on %s; change it with \"iotdm service configuration update\"", id, t.Host())
	case answer.Status == 412:
		return fail.Errorf(fail.Failed, "configuration %s was changed by somebody else in the meantime; look at it and try again", id)
	}
	return t.Explain(ctx, err, target.NoIdentity)
}

func configurationGetCommand(s output.Streams) *urfave.Command {
	return configurationCommand(s, &urfave.Command{Name: "get", Usage: "print configurations with their metrics", ArgsUsage: "[CONFIGURATION...]",
		Description: "For example:\n   iotdm service configuration get eco"}, noFlags,
		func(ctx context.Context, client *hubrest.Client, o configurationOptions) (any, error) {
			c, err := client.Configuration(ctx, o.id)
			return c, err
		})
}

func configurationDeleteCommand(s output.Streams) *urfave.Command {
	return configurationCommand(s, &urfave.Command{Name: "delete", Usage: "delete configurations, and what they have set", ArgsUsage: "[CONFIGURATION...]",
		Description: "For example:\n   iotdm service configuration delete eco"},
		func(o *configurationOptions) []urfave.Flag {
			return []urfave.Flag{command.ETagFlag(&o.etag), ifExistsFlag(&o.ifExists)}
		},
		func(ctx context.Context, client *hubrest.Client, o configurationOptions) (any, error) {
			return nil, passMissing(s, o.ifExists, "configuration "+o.id, client.DeleteConfiguration(ctx, o.id, strings.Trim(o.etag, `"`)))
		})
}

func noFlags(*configurationOptions) []urfave.Flag { return nil }

type configurationListOptions struct {
	target.Service
	top int
}

func configurationListCommand(s output.Streams) *urfave.Command {
	var o configurationListOptions
	return command.Leaf(&urfave.Command{
		Name:  "list",
		Usage: "list the configurations",
		Description: "For example:\n" +
			"   iotdm service configuration list",
		Flags: command.Concat([]urfave.Flag{
			&urfave.IntFlag{Name: "top", Destination: &o.top, Usage: "list at most `N` configurations", DefaultText: "all"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if ctx.IsSet("top") && o.top < 1 {
				return fail.Usagef("--top %d is less than 1", o.top)
			}
			if err := o.Output.Check(); err != nil {
				return err
			}
			return o.Call(ctx.Context, s, target.NoIdentity, func(ctx context.Context, client *hubrest.Client) (any, error) {
				list, err := client.Configurations(ctx, o.top)
				if list == nil {
					list = []hubrest.Configuration{}
				}
				return output.Result{Value: list, Columns: configurationColumns}, err
			})
		},
	})
}

type configurationTestOptions struct {
	target.Service
	target  string
	metrics string
}

func configurationTestCommand(s output.Streams) *urfave.Command {
	var o configurationTestOptions
	return command.Leaf(&urfave.Command{
		Name:  "test",
		Usage: "say what is wrong with a condition, or with queries of metrics",
		Description: "For example:\n" +
			"   iotdm service configuration test --where \"tags.site = 'south'\"",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "target-condition", Aliases: []string{"where", "tc"}, Destination: &o.target, Usage: "the `CONDITION`"},
			&urfave.StringFlag{Name: "metrics", Destination: &o.metrics, Usage: "a `JSON` object from names to queries, @FILE or -"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if o.target == "" && o.metrics == "" {
				return fail.Usagef("what is to be tested? give --target-condition or --metrics")
			}
			if err := o.Output.Check(); err != nil {
				return err
			}
			return testConfiguration(ctx.Context, s, o)
		},
	})
}

func testConfiguration(ctx context.Context, s output.Streams, o configurationTestOptions) error {
	var metrics map[string]string
	if o.metrics != "" {
		object, err := command.ReadObject(s, "--metrics", o.metrics)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(object, &metrics); err != nil {
			return fail.Usagef("--metrics must go from names to queries")
		}
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	found, err := client.TestConfigurationQueries(ctx, o.target, metrics)
	if err != nil {
		return t.Explain(ctx, err, target.NoIdentity)
	}
	noteHints(s, o.target)
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		for _, hint := range hintsOf(metrics[name]) {
			s.Note("Hint for metric %s: %s", name, hint)
		}
	}
	if err := o.Output.Print(s, output.Result{Value: found}); err != nil {
		return err
	}
	if found.TargetCondition != "" || len(found.Metrics) > 0 {
		return fail.Errorf(fail.Failed, "the hub would refuse this")
	}
	return nil
}
