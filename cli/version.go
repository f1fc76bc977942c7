package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
)

func versionCommand(s output.Streams) *urfave.Command {
	var o output.Options
	return command.Leaf(&urfave.Command{
		Name:  "version",
		Usage: "print the version",
		Description: "For example:\n" +
			"   iotdm version --jq .version",
		Flags: o.Flags(),
		Action: func(*urfave.Context) error {
			if err := o.Check(); err != nil {
				return err
			}
			return o.Print(s, versionResult())
		},
	})
}

func versionResult() output.Result {
	v := struct {
		Version  string `json:"version"`
		Revision string `json:"revision,omitempty"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			v.Version = info.Main.Version
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				v.Revision = setting.Value
			}
		}
	}
	return output.Result{Value: v, Text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "iotdm %s %s %s\n", v.Version, v.Platform, v.Go)
		return err
	}}
}
