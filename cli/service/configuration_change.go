package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
)

// changeFlags are the flags for what can be changed of a configuration.
func (o *configurationOptions) changeFlags() []urfave.Flag {
	return command.Concat([]urfave.Flag{
		&urfave.StringFlag{Name: "target-condition", Aliases: []string{"where", "tc"}, Destination: &o.target, Usage: "which twins: a `CONDITION` or '*'; for modules FROM devices.modules WHERE and a condition"},
		&urfave.IntFlag{Name: "priority", Destination: &o.priority, Usage: "of two configurations that set the same, the one with the bigger `N` counts", DefaultText: "0"},
		&urfave.StringFlag{Name: "labels", Destination: &o.labels, Usage: "a `JSON` object of texts, @FILE or -"},
		&urfave.StringFlag{Name: "metrics", Destination: &o.metrics, Usage: "a `JSON` object from names to queries, @FILE or -"},
	}, o.guard.flags())
}

// admit has the user agree to the twins that the condition of c chooses.
func (o *configurationOptions) admit(ctx context.Context, s output.Streams, client *hubrest.Client, c hubrest.Configuration, addition string) (bool, error) {
	if !o.guard.dryRun && c.TargetCondition == "" { // which chooses none
		return true, nil
	}
	return o.guard.admit(ctx, s, client, o.Output, plan{verb: "Apply configuration " + c.ID + " to", where: scopeOf(c), addition: addition})
}

// scopeOf is a condition that chooses what a configuration does.
func scopeOf(c hubrest.Configuration) string {
	const edge = "capabilities.iotEdge = true" // which a deployment is for
	switch {
	case c.TargetCondition == "":
		return "false"
	case len(c.Content.Modules) == 0:
		return c.TargetCondition
	}
	return edge + condition.And(c.TargetCondition)
}

// contentFlag is the flag for what a configuration sets. A deployment manifest
// of IoT Edge is one as well.
func contentFlag(content *string) urfave.Flag {
	return &urfave.StringFlag{Name: "content", Destination: content, Usage: "a `JSON` object with deviceContent or moduleContent, which go from paths to values, or with the modulesContent of IoT Edge; @FILE or -"}
}

// parseContent reads the content with and without its name, as the Azure CLI
// does.
func parseContent(text string) (content hubrest.ConfigurationContent, err error) {
	if text == "" {
		return content, fail.Usagef("--content is missing, for example --content '{\"deviceContent\": {\"properties.desired.interval\": 60}}'")
	}
	var named struct{ Content *hubrest.ConfigurationContent }
	if err := json.Unmarshal([]byte(text), &named); err != nil {
		return content, fail.Usagef("--content: %v", plainJSONError(err))
	}
	if named.Content != nil {
		content = *named.Content
	} else if err := json.Unmarshal([]byte(text), &content); err != nil {
		return content, fail.Usagef("--content: %v", plainJSONError(err))
	}
	if len(content.Device)+len(content.Module)+len(content.Modules) == 0 {
		return content, fail.Usagef("--content has none of deviceContent, moduleContent and modulesContent; for example {\"deviceContent\": {\"properties.desired.interval\": 60}}")
	}
	return content, nil
}

// plainJSONError words an error of package json without Go's types.
func plainJSONError(err error) error {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s must not be of type %s", wrong.Field, wrong.Value)
	}
	return err
}

// apply puts what the flags say into c.
func (o *configurationOptions) apply(c *hubrest.Configuration) error {
	if o.targetSet {
		c.TargetCondition = o.target
	}
	if o.prioritySet {
		c.Priority = o.priority
	}
	if o.labels != "" {
		c.Labels = nil
		if err := json.Unmarshal([]byte(o.labels), &c.Labels); err != nil {
			return fail.Usagef("--labels must go from names to texts")
		}
	}
	if o.metrics != "" {
		// Also in the form of a configuration: {"queries": {...}}.
		var whole struct{ Queries map[string]string }
		if json.Unmarshal([]byte(o.metrics), &whole) == nil && whole.Queries != nil {
			c.Metrics.Queries = whole.Queries
			return nil
		}
		c.Metrics.Queries = nil
		if err := json.Unmarshal([]byte(o.metrics), &c.Metrics.Queries); err != nil {
			return fail.Usagef("--metrics must go from names to queries")
		}
	}
	return nil
}

func configurationCreateCommand(s output.Streams) *urfave.Command {
	return configurationCommand(s, &urfave.Command{
		Name:  "create",
		Usage: "create a configuration, which the hub applies to all twins that match",
		Description: "For example:\n" +
			"   iotdm service configuration create eco --where \"tags.site = 'north'\" --content '{\"deviceContent\": {\"properties.desired.interval\": 60}}'",
	}, func(o *configurationOptions) []urfave.Flag {
		return command.Concat([]urfave.Flag{
			contentFlag(&o.content),
		}, o.changeFlags(), []urfave.Flag{ifMissingFlag(&o.ifMissing)})
	}, func(ctx context.Context, client *hubrest.Client, o configurationOptions) (any, error) {
		c := hubrest.Configuration{ID: o.id, SchemaVersion: "2.0"}
		var err error
		if c.Content, err = parseContent(o.content); err != nil {
			return nil, err
		}
		if err := o.apply(&c); err != nil {
			return nil, err
		}
		if goOn, err := o.admit(ctx, s, client, c, ""); err != nil || !goOn {
			return nil, err
		}
		created, err := client.CreateConfiguration(ctx, c)
		if o.ifMissing {
			created, err = keepExisting(s, "configuration "+o.id, "change it with \"iotdm service configuration update\"; another content needs another name", c, created, err, func() (hubrest.Configuration, error) {
				return client.Configuration(ctx, o.id)
			})
		}
		return created, err
	})
}

func configurationUpdateCommand(s output.Streams) *urfave.Command {
	return configurationCommand(s, &urfave.Command{
		Name:  "update",
		Usage: "change the condition, priority, labels or metrics of a configuration",
		Description: "For example:\n" +
			"   iotdm service configuration update eco --where \"tags.site = 'south'\" --priority 5",
	}, func(o *configurationOptions) []urfave.Flag {
		return command.Concat(o.changeFlags(), []urfave.Flag{command.ETagFlag(&o.etag)})
	}, func(ctx context.Context, client *hubrest.Client, o configurationOptions) (any, error) {
		c, err := client.Configuration(ctx, o.id)
		if err != nil {
			return nil, err
		}
		before := scopeOf(c)
		if err := o.apply(&c); err != nil {
			return nil, err
		}
		if o.targetSet || o.guard.dryRun {
			addition := ""
			if sc, err := countScope(ctx, client, before); err == nil { // else it is one that chooses none
				addition = fmt.Sprintf(", instead of %d", sc.Devices)
			}
			if goOn, err := o.admit(ctx, s, client, c, addition); err != nil || !goOn {
				return nil, err
			}
		}
		if o.etag != "" {
			c.ETag = strings.Trim(o.etag, `"`)
		}
		updated, err := client.UpdateConfiguration(ctx, c)
		return updated, err
	})
}
