package cli

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	urfave "github.com/urfave/cli/v2"
)

func versionCommand(s streams) *urfave.Command {
	var o outputOptions
	return leaf(&urfave.Command{
		Name:  "version",
		Usage: "print the version",
		Description: "For example:\n" +
			"   iotdm version --jq .version",
		Flags: o.flags(),
		Action: func(*urfave.Context) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.print(s, versionResult())
		},
	})
}

func versionResult() result {
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
	return result{value: v, text: func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "iotdm %s %s %s\n", v.Version, v.Platform, v.Go)
		return err
	}}
}
