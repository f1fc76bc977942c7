package service

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/bulk"
)

type twinGetOptions struct {
	target.Service
	on identityOptions
}

func twinGetCommand(s output.Streams) *urfave.Command {
	var o twinGetOptions
	return target.EachCall(s, &urfave.Command{
		Name:      "get",
		Usage:     "print device twins",
		ArgsUsage: "[DEVICE...]",
		Description: "For example:\n" +
			"   iotdm service twin get device-1\n" +
			"   iotdm service twin get device-1 --jq .properties.reported.rebootTime\n" +
			"   iotdm service twin get device-1 device-2 -o table",
	}, &o, twinColumns, func(ctx context.Context, client *hubrest.Client) (any, error) {
		twin, err := client.Twin(ctx, o.on.target())
		return twin.Raw, err
	})
}

func (o *twinGetOptions) Flags() []urfave.Flag {
	return command.Concat(o.on.flags(), o.Service.Flags())
}

// Check refuses options that make no sense together.
func (o *twinGetOptions) Check() error { return fail.First(o.on.check(), o.Output.Check()) }

func (o *twinGetOptions) About() hubrest.Target { return o.on.target() }

// twinChangeOptions are those of patch and replace, which differ only in what
// happens to what they do not name.
type twinChangeOptions struct {
	target.Service
	on            identityOptions
	desired, tags string
	set           command.Texts // of patch only
	etag          string
	document      string // the argument
}

func twinPatchCommand(s output.Streams) *urfave.Command {
	return twinChangeCommand(s, (*hubrest.Client).PatchTwin, &urfave.Command{
		Name:  "patch",
		Usage: "merge tags and desired properties into the twin",
		Description: "What is null is deleted, be it all desired properties; what is not named stays. For example:\n" +
			"   iotdm service twin patch --device device-1 --desired '{\"interval\": 60}'\n" +
			"   iotdm service twin patch --device device-1 --set tags.site=north --set desired.led.color=null\n" +
			"   iotdm service twin patch --device device-1 '{\"tags\": {\"site\": \"north\"}, \"properties\": {\"desired\": {\"interval\": null}}}'",
	})
}

func twinReplaceCommand(s output.Streams) *urfave.Command {
	return twinChangeCommand(s, (*hubrest.Client).ReplaceTwin, &urfave.Command{
		Name:  "replace",
		Usage: "replace all tags and desired properties of the twin",
		Description: "What is left out is cleared, and the device is told so; null is refused. For example:\n" +
			"   iotdm service twin replace --device device-1 --desired '{\"interval\": 60}' --tags '{\"site\": \"north\"}'\n" +
			"   iotdm service twin replace --device device-1 @twin.json",
	})
}

type twinChanger func(*hubrest.Client, context.Context, hubrest.Target, hubrest.TwinChange) (hubrest.Twin, error)

func twinChangeCommand(s output.Streams, change twinChanger, c *urfave.Command) *urfave.Command {
	var o twinChangeOptions
	c.ArgsUsage = "[TWIN]"
	c.Flags = command.Concat(o.on.flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "desired", Destination: &o.desired, Usage: "desired properties: a JSON `OBJECT`, @FILE or -"},
		&urfave.StringFlag{Name: "tags", Destination: &o.tags, Usage: "tags: a JSON `OBJECT`, @FILE or -"},
		command.ETagFlag(&o.etag),
	}, o.Flags())
	if c.Name == "patch" {
		c.Flags = append(c.Flags, &urfave.GenericFlag{Name: "set", Value: &o.set,
			Usage: "set one value, `PATH=VALUE`, such as tags.site=north; null deletes; repeatable"})
	}
	var document string // as az has it
	c.Flags = append(c.Flags, &urfave.StringFlag{Name: "json", Aliases: []string{"j"}, Destination: &document, Usage: "the `TWIN`, as the argument"})
	c.Action = func(ctx *urfave.Context) error {
		o.document = cmp.Or(ctx.Args().First(), document)
		if err := o.Check(); err != nil {
			return err
		}
		return changeTwin(ctx.Context, s, o, change)
	}
	return command.Leaf(c)
}

// Check refuses options that make no sense together.
func (o *twinChangeOptions) Check() error {
	switch {
	case o.document == "" && o.desired == "" && o.tags == "" && len(o.set) == 0:
		return fail.Usagef("nothing to change; give --desired, --tags, or a twin as argument")
	case o.document != "" && (o.desired != "" || o.tags != ""):
		return fail.Usagef("give either a twin as argument, or --desired and --tags")
	}
	return fail.First(o.on.check(), o.Output.Check())
}

func changeTwin(ctx context.Context, s output.Streams, o twinChangeOptions, change twinChanger) error {
	wanted, err := o.change(s)
	if err != nil {
		return err
	}
	return o.Call(ctx, s, o.on.target(), func(ctx context.Context, client *hubrest.Client) (any, error) {
		twin, err := change(client, ctx, o.on.target(), wanted)
		return twin.Raw, err
	})
}

// change reads what the flags and the argument hold.
func (o *twinChangeOptions) change(s output.Streams) (hubrest.TwinChange, error) {
	c := hubrest.TwinChange{ETag: o.etag}
	var err error
	if o.desired != "" {
		if c.Desired, err = command.ReadObject(s, "--desired", o.desired); err != nil {
			return c, err
		}
	}
	if o.tags != "" {
		if c.Tags, err = command.ReadObject(s, "--tags", o.tags); err != nil {
			return c, err
		}
	}
	if o.document == "" {
		return c, o.setValues(&c)
	}
	doc, err := command.ReadObject(s, "the twin", o.document)
	if err != nil {
		return c, err
	}
	tags, desired := gjson.GetBytes(doc, "tags"), gjson.GetBytes(doc, "properties.desired")
	clears := desired.Type == gjson.Null && desired.Exists() // of tags it means nothing, and hubs ignore it
	if !tags.IsObject() && !desired.IsObject() && !clears {
		return c, fail.Usagef("the twin has neither tags nor properties.desired; only those can be changed")
	}
	if tags.IsObject() {
		c.Tags = json.RawMessage(tags.Raw)
	}
	if desired.IsObject() || clears {
		c.Desired = json.RawMessage(desired.Raw)
	}
	return c, o.setValues(&c)
}

// setValues adds what --set says to the change.
func (o *twinChangeOptions) setValues(c *hubrest.TwinChange) error {
	for _, set := range o.set {
		path, value, ok := strings.Cut(set, "=")
		section, path, below := strings.Cut(strings.TrimPrefix(path, "properties."), ".")
		to := map[string]*any{"tags": &c.Tags, "desired": &c.Desired}[section]
		if !ok || !below || to == nil {
			return fail.Usagef("--set %q is not a path in tags or desired and a value, such as tags.site=north or desired.interval=60", set)
		}
		doc, _ := (*to).(json.RawMessage)
		doc, err := bulk.WithMember(doc, path, value)
		if err != nil {
			return fail.Usagef("--set %q: %v", set, err)
		}
		*to = doc
	}
	return nil
}
