package service

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/internal/bulk"
)

type deviceExportOptions struct {
	target.Service
	file   string // "" and "-" are standard output
	format string
	where  string
	keys   bool
}

func deviceExportCommand(s output.Streams) *urfave.Command {
	var o deviceExportOptions
	return command.Leaf(&urfave.Command{
		Name:      "export",
		Usage:     "write all devices and modules, with their twins, to a file",
		ArgsUsage: "[FILE]",
		Description: "Writes a line of JSON for each, in the format of the export jobs of IoT Hub,\n" +
			"or CSV. FILE is replaced when all is written; without it the lines go to\n" +
			"standard output. Devices come before their modules and parents before their\n" +
			"children, as \"iotdm service device import\" wants them. For example:\n" +
			"   iotdm service device export devices.ndjson --keys\n" +
			"   iotdm service device export north.csv --where \"tags.site = 'north'\"\n\n" +
			"Only with --keys the file has the keys, and who manages a module: that takes\n" +
			"one more request for each of them.",
		Flags: command.Concat([]urfave.Flag{
			&urfave.BoolFlag{Name: "keys", Destination: &o.keys, DisableDefaultText: true, Usage: "with the keys of the devices; only you may read FILE then"},
			&urfave.StringFlag{Name: "where", Destination: &o.where, Usage: "only the devices and modules that meet the query `CONDITION`"},
			bulkFormatFlag(&o.format),
		}, o.HubFlags()),
		Action: func(ctx *urfave.Context) error {
			o.file = ctx.Args().First()
			if err := checkBulkFormat(o.format); err != nil {
				return err
			}
			if o.format == "" && strings.EqualFold(filepath.Ext(o.file), ".csv") {
				o.format = "csv"
			}
			return exportDevices(ctx.Context, s, o)
		},
	})
}

func exportDevices(ctx context.Context, s output.Streams, o deviceExportOptions) error {
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	return exportTo(ctx, s, t, o.file, o.keys, func(out io.Writer, progress *output.Tally) (written string, err error) {
		w, err := bulk.NewWriter(out, o.format, o.keys)
		if err != nil {
			return "", err
		}
		ex := &bulk.Export{Client: client, Keys: o.keys, Writer: w, Paused: progress.TellPause}
		ex.Wrote = func() { progress.Show(ex.Count, identities(ex.Count)) }
		if err = ex.Run(ctx, o.where); err == nil {
			err = w.Flush()
		}
		return identities(ex.Count), err
	})
}

// identities is a number of devices and modules for people.
func identities(n int) string {
	if n == 1 {
		return "1 identity"
	}
	return fmt.Sprint(n, " identities")
}
