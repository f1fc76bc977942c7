package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
)

type configured struct {
	Device   string
	Duration time.Duration
	Fast     bool
	Hosts    []string
	Methods  map[string]string
}

// bindings is the value of a flag that is given as NAME=VALUE, once for each name.
type bindings map[string]string

func (b bindings) String() string { return "" }

func (b bindings) Repeatable() {}

func (b bindings) Set(text string) error {
	name, value, _ := strings.Cut(text, "=")
	b[name] = value
	return nil
}

// configure runs a command with the flags of several kinds on a configuration file.
func configure(t *testing.T, text string, args ...string) (got configured, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "device.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var config string
	d := Seconds(time.Minute)
	var hosts urfave.StringSlice
	methods := bindings{}
	var out bytes.Buffer
	command := Leaf(&urfave.Command{
		Name: "run",
		Flags: []urfave.Flag{
			DeviceFlag(&got.Device, "the device"),
			&urfave.GenericFlag{Name: "reboot-duration", Value: &d},
			&urfave.BoolFlag{Name: "fast", Destination: &got.Fast},
			&urfave.StringSliceFlag{Name: "host", Destination: &hosts},
			&urfave.GenericFlag{Name: "on-method", Value: &methods},
			ConfigFlag(&config),
		},
		Action: func(ctx *urfave.Context) error { return ReadConfig(ctx, output.Streams{ErrOut: &out}, config) },
	})
	app := &urfave.App{Name: "iotdm", Commands: []*urfave.Command{command}, ExitErrHandler: func(*urfave.Context, error) {}, Writer: &out}
	err = app.Run(append([]string{"iotdm", "run", "--config", file}, args...))
	if err != nil {
		return got, err
	}
	got.Duration, got.Hosts = time.Duration(d), hosts.Value()
	if len(methods) > 0 {
		got.Methods = methods
	}
	return got, nil
}

func TestConfigFile(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		args       []string
		want       configured
	}{
		{name: "nothing", text: "", want: configured{Duration: time.Minute}},
		{name: "only comments", text: "# device: d1\n---\n", want: configured{Duration: time.Minute}},
		{name: "values of each kind", text: "device: d1\nreboot-duration: 5s\nfast: true\nhost: [a, b]\non-method:\n  ping: echo 1\n  status: cat /etc/status\n",
			want: configured{"d1", 5 * time.Second, true, []string{"a", "b"}, map[string]string{"ping": "echo 1", "status": "cat /etc/status"}}},
		{name: "a number", text: "device: 7\nreboot-duration: 5\nhost: one\n", want: configured{Device: "7", Duration: 5 * time.Second, Hosts: []string{"one"}}},
		{name: "JSON", text: `{"device": "d1"}`, want: configured{Device: "d1", Duration: time.Minute}},
		{name: "the command line wins", text: "device: d1\nfast: true\nhost: [a]\non-method:\n  ping: echo 1\n", args: []string{"-d", "d2", "--fast=false", "--host", "b", "--on-method", "pong=echo 2"},
			want: configured{Device: "d2", Duration: time.Minute, Hosts: []string{"b"}, Methods: map[string]string{"pong": "echo 2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := configure(t, tt.text, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s gives (-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

func TestConfigFileRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown key", "device: d1\ndevise: d2\n", `line 2: unknown key "devise", did you mean "device"?; keys are the flags of "iotdm run --help"`},
		{"a key that is not for files", "config: x\n", `line 1: unknown key "config"`},
		{"twice", "device: d1\n\ndevice: d2\n", `line 3: device is given in line 1 already`},
		{"twice under two names", "device: d1\nd: d2\n", `line 2: d is given in line 1 already`},
		{"a bad value", "fast: true\nreboot-duration: soon\n", `line 2: reboot-duration: "soon" is not a duration such as 30s, 5m or 30 (seconds)`},
		{"a bad truth", "fast: perhaps\n", `line 1: fast: "perhaps" is neither true nor false`},
		{"a bad element", "on-method:\n  ping: echo 1\n  pong:\n", `line 3: on-method takes a list of values, or a mapping of names to values`},
		{"a list for one", "device: [d1, d2]\n", `line 1: device takes one value`},
		{"a mapping for one", "device: {id: d1}\n", `line 1: device takes one value`},
		{"no value", "device:\n", `line 1: device takes one value`},
		{"no value for many", "host:\n", `line 1: host has no value`},
		{"lists in lists", "host: [[a]]\n", `line 1: host takes a list of values`},
		{"a list", "- device\n", `line 1: what is here is no mapping, such as "device: pump-7"`},
		{"text", "device\n", `line 1: what is here is no mapping`},
		{"two documents", "device: d1\n---\ndevice: d2\n", `has more than one document`},
		{"no YAML", "device: 'd1\n", `yaml: `},
		{"a bomb", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n", `line 1: unknown key "a"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := configure(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%q gives the error %v, want %q", tt.text, err, tt.want)
			}
			if got := fail.ExitStatus(err); got != fail.Usage {
				t.Errorf("exit status %d, want %d", got, fail.Usage)
			}
		})
	}
}
