package cli

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/phrase"
)

// version is that of a release, given by
//
//	go build -ldflags "-X github.com/iotdm/iotdm/cli.version=1.2.3"
//
// Everything else the go command writes into the program by itself, the version
// too where a module's version is installed.
var version string

func versionCommand(s output.Streams) *urfave.Command {
	var o output.Options
	return command.Leaf(&urfave.Command{
		Name:  "version",
		Usage: "print the version",
		Description: "So does \"iotdm --version\". For example:\n" +
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

// versionFlag stands for the command where people try it first.
func versionFlag(want *bool) urfave.Flag {
	return &urfave.BoolFlag{Name: "version", Destination: want, DisableDefaultText: true, Usage: "print the version"}
}

func versionResult() output.Result {
	v := struct {
		Version  string `json:"version"`
		Commit   string `json:"commit,omitempty"`
		Date     string `json:"date,omitempty"` // of the commit
		Modified bool   `json:"modified,omitempty"`
		Go       string `json:"go"`
		Platform string `json:"platform"`
	}{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = cmp.Or(v.Version, info.Main.Version)
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				v.Commit = setting.Value
			case "vcs.time":
				v.Date = setting.Value
			case "vcs.modified":
				v.Modified = setting.Value == "true"
			}
		}
	}
	v.Version = cmp.Or(strings.TrimPrefix(v.Version, "v"), "(devel)")
	return output.Result{Value: v, Text: func(w io.Writer) error {
		text := fmt.Sprintf("iotdm %s %s %s", v.Version, v.Platform, v.Go)
		if v.Commit != "" {
			text += fmt.Sprintf(", commit %.12s of %s%s", v.Commit, v.Date, phrase.Choose(v.Modified, " with changes", ""))
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}}
}
