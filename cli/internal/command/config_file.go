package command

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"

	urfave "github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/phrase"
)

// A configuration file is YAML that gives flags by their names:
//
//	device: pump-7
//	reboot-command: systemctl reboot
//	on-method:
//	  ping: /usr/lib/pump/ping
//
// The flags of the command are its only schema. One that may be repeated takes
// a list, or a mapping where its values have the form NAME=VALUE.

// A repeatable is the value of a generic flag that may be repeated.
type repeatable interface{ Repeatable() }

// ConfigFlag names a configuration file; see ReadConfig.
func ConfigFlag(file *string) urfave.Flag {
	return &urfave.StringFlag{Name: "config", Destination: file,
		Usage: "take from `FILE` (YAML: flags by their names) what the command line leaves open"}
}

// ReadConfig sets the flags that the file gives and that are not set.
func ReadConfig(ctx *urfave.Context, s output.Streams, file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return fail.Usagef("--config: %v", fail.PlainPathError(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxInput+1))
	if err != nil {
		return fail.Usagef("--config: %v", fail.PlainPathError(err))
	}
	if len(text) > MaxInput {
		return fail.Usagef("--config %s: more than %d KiB", file, MaxInput>>10)
	}
	c := configFile{name: file, ctx: ctx}
	err = c.apply(text)
	if info, statErr := f.Stat(); err == nil && statErr == nil && runtime.GOOS != "windows" &&
		info.Mode()&0o077 != 0 && bytes.Contains(text, []byte("SharedAccessKey=")) {
		s.Note("Others than its owner can read %s, which holds a key; run \"chmod 600 %s\"", file, file)
	}
	return err
}

type configFile struct {
	name string
	ctx  *urfave.Context
}

func (c configFile) errorf(at *yaml.Node, format string, args ...any) error {
	return fail.Usagef("%s line %d: %s", c.name, at.Line, fmt.Sprintf(format, args...))
}

func (c configFile) apply(text []byte) error {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil // nothing but comments
	}
	if err != nil {
		return fail.Usagef("%s: %v", c.name, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return fail.Usagef("%s has more than one document", c.name)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return c.errorf(root, "what is here is no mapping, such as \"device: pump-7\"")
	}
	lines := make(map[urfave.Flag]int)
	for i := 0; i < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		f, err := c.flag(key)
		if err != nil {
			return err
		}
		if line, double := lines[f]; double {
			return c.errorf(key, "%s is given in line %d already", key.Value, line)
		}
		lines[f] = key.Line
		if err := c.set(f, key, value); err != nil {
			return err
		}
	}
	return nil
}

// notInConfig are flags that make no sense in a file.
var notInConfig = []string{"config", "help"}

func (c configFile) flag(key *yaml.Node) (urfave.Flag, error) {
	f := FlagNamed(c.ctx.Command, key.Value)
	if f != nil && !slices.Contains(notInConfig, f.Names()[0]) {
		return f, nil
	}
	var names []string
	for _, f := range c.ctx.Command.Flags {
		if name := f.Names()[0]; !slices.Contains(notInConfig, name) {
			names = append(names, name)
		}
	}
	return nil, c.errorf(key, "unknown key %q%s; keys are the flags of \"%s --help\"", key.Value, phrase.DidYouMean(key.Value, names), c.ctx.Command.HelpName)
}

// set gives a flag its value, unless it has one. The value is checked in any
// case.
func (c configFile) set(f urfave.Flag, key, value *yaml.Node) error {
	values, err := c.values(f, key, value)
	if err != nil || c.ctx.IsSet(f.Names()[0]) {
		return err
	}
	for _, v := range values {
		if err := c.ctx.Set(f.Names()[0], v.Value); err != nil {
			why := plainParseError(err.Error())
			if _, isBool := f.(*urfave.BoolFlag); isBool {
				why = "is neither true nor false"
			}
			return c.errorf(v, "%s: %q %s", key.Value, v.Value, why)
		}
	}
	return nil
}

// values are what a flag is to be set to, one after the other.
func (c configFile) values(f urfave.Flag, key, value *yaml.Node) ([]*yaml.Node, error) {
	slice, many := f.(urfave.DocGenerationSliceFlag)
	many = many && slice.IsSliceFlag()
	if g, ok := f.(*urfave.GenericFlag); ok {
		_, many = g.Value.(repeatable)
	}
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	switch {
	case value.Kind == yaml.ScalarNode && value.Tag != "!!null":
		return []*yaml.Node{value}, nil
	case !many:
		return nil, c.errorf(key, "%s takes one value", key.Value)
	case value.Kind == yaml.SequenceNode:
		for _, v := range value.Content {
			if v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
				return nil, c.errorf(v, "%s takes a list of values", key.Value)
			}
		}
		return value.Content, nil
	case value.Kind == yaml.MappingNode:
		var values []*yaml.Node
		for i := 0; i < len(value.Content); i += 2 {
			name, v := value.Content[i], value.Content[i+1]
			if name.Kind != yaml.ScalarNode || v.Kind != yaml.ScalarNode || v.Tag == "!!null" {
				return nil, c.errorf(name, "%s takes a list of values, or a mapping of names to values", key.Value)
			}
			values = append(values, &yaml.Node{Value: name.Value + "=" + v.Value, Line: v.Line})
		}
		return values, nil
	}
	return nil, c.errorf(key, "%s has no value", key.Value)
}
