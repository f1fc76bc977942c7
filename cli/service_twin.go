package cli

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hubrest"
)

type twinGetOptions struct {
	serviceOptions
	on identityOptions
}

func twinGetCommand(s streams) *urfave.Command {
	var o twinGetOptions
	return leaf(&urfave.Command{
		Name:  "get",
		Usage: "print the device twin",
		Description: "For example:\n" +
			"   iotdm service twin get --device device-1\n" +
			"   iotdm service twin get --device device-1 --jq .properties.reported.rebootTime",
		Flags: concat(o.on.flags(), o.flags()),
		Action: func(ctx *urfave.Context) error {
			if err := firstError(o.on.check(), o.output.check()); err != nil {
				return err
			}
			return getTwin(ctx.Context, s, o)
		},
	})
}

func getTwin(ctx context.Context, s streams, o twinGetOptions) error {
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	twin, err := client.Twin(ctx, o.on.target())
	if err != nil {
		return t.explain(ctx, err, o.on.target())
	}
	return o.output.print(s, result{value: twin.Raw})
}

// twinChangeOptions are those of patch and replace, which differ only in what
// happens to what they do not name.
type twinChangeOptions struct {
	serviceOptions
	on            identityOptions
	desired, tags string
	set           texts // of patch only
	etag          string
	document      string // the argument
}

func twinPatchCommand(s streams) *urfave.Command {
	return twinChangeCommand(s, (*hubrest.Client).PatchTwin, &urfave.Command{
		Name:  "patch",
		Usage: "merge tags and desired properties into the twin",
		Description: "What is null is deleted; what is not named stays. For example:\n" +
			"   iotdm service twin patch --device device-1 --desired '{\"interval\": 60}'\n" +
			"   iotdm service twin patch --device device-1 --set tags.site=north --set desired.led.color=null\n" +
			"   iotdm service twin patch --device device-1 '{\"tags\": {\"site\": \"north\"}, \"properties\": {\"desired\": {\"interval\": null}}}'",
	})
}

func twinReplaceCommand(s streams) *urfave.Command {
	return twinChangeCommand(s, (*hubrest.Client).ReplaceTwin, &urfave.Command{
		Name:  "replace",
		Usage: "replace all tags and desired properties of the twin",
		Description: "What is left out is cleared. For example:\n" +
			"   iotdm service twin replace --device device-1 --desired '{\"interval\": 60}' --tags '{\"site\": \"north\"}'\n" +
			"   iotdm service twin replace --device device-1 @twin.json",
	})
}

type twinChanger func(*hubrest.Client, context.Context, hubrest.Target, hubrest.TwinChange) (hubrest.Twin, error)

func twinChangeCommand(s streams, change twinChanger, c *urfave.Command) *urfave.Command {
	var o twinChangeOptions
	c.ArgsUsage = "[TWIN]"
	c.Flags = concat(o.on.flags(), []urfave.Flag{
		&urfave.StringFlag{Name: "desired", Destination: &o.desired, Usage: "desired properties: a JSON `OBJECT`, @FILE or -"},
		&urfave.StringFlag{Name: "tags", Destination: &o.tags, Usage: "tags: a JSON `OBJECT`, @FILE or -"},
		etagFlag(&o.etag),
	}, o.flags())
	if c.Name == "patch" {
		c.Flags = append(c.Flags, &urfave.GenericFlag{Name: "set", Value: &o.set,
			Usage: "set one value, `PATH=VALUE`, such as tags.site=north; null deletes; repeatable"})
	}
	c.Action = func(ctx *urfave.Context) error {
		o.document = ctx.Args().First()
		if err := o.check(); err != nil {
			return err
		}
		return changeTwin(ctx.Context, s, o, change)
	}
	return leaf(c)
}

func (o *twinChangeOptions) check() error {
	switch {
	case o.document == "" && o.desired == "" && o.tags == "" && len(o.set) == 0:
		return usagef("nothing to change; give --desired, --tags, or a twin as argument")
	case o.document != "" && (o.desired != "" || o.tags != ""):
		return usagef("give either a twin as argument, or --desired and --tags")
	}
	return firstError(o.on.check(), o.output.check())
}

func changeTwin(ctx context.Context, s streams, o twinChangeOptions, change twinChanger) error {
	wanted, err := o.change(s)
	if err != nil {
		return err
	}
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	twin, err := change(client, ctx, o.on.target(), wanted)
	if err != nil {
		return t.explain(ctx, err, o.on.target())
	}
	return o.output.print(s, result{value: twin.Raw})
}

// change reads what the flags and the argument hold.
func (o *twinChangeOptions) change(s streams) (hubrest.TwinChange, error) {
	c := hubrest.TwinChange{ETag: o.etag}
	var err error
	if o.desired != "" {
		if c.Desired, err = readObject(s, "--desired", o.desired); err != nil {
			return c, err
		}
	}
	if o.tags != "" {
		if c.Tags, err = readObject(s, "--tags", o.tags); err != nil {
			return c, err
		}
	}
	if o.document == "" {
		return c, o.setValues(&c)
	}
	doc, err := readObject(s, "the twin", o.document)
	if err != nil {
		return c, err
	}
	tags, desired := gjson.GetBytes(doc, "tags"), gjson.GetBytes(doc, "properties.desired")
	if !tags.IsObject() && !desired.IsObject() {
		return c, usagef("the twin has neither tags nor properties.desired; only those can be changed")
	}
	if tags.IsObject() {
		c.Tags = json.RawMessage(tags.Raw)
	}
	if desired.IsObject() {
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
			return usagef("--set %q is not a path in tags or desired and a value, such as tags.site=north or desired.interval=60", set)
		}
		doc, _ := (*to).(json.RawMessage)
		doc, err := withMember(doc, strings.Split(path, "."), cellValue(value))
		if err != nil {
			return usagef("--set %q: %v", set, err)
		}
		*to = doc
	}
	return nil
}
