package cli

import (
	"context"
	"encoding/json"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"
)

// twinColumns are what the table of whole twins shows.
var twinColumns = []column{
	{"DEVICE", "deviceId"},
	{"MODULE", "moduleId"},
	{"STATUS", "status"},
	{"CONNECTION", "connectionState"},
	{"VERSION", "version"},
	{"LAST ACTIVITY", "lastActivityTime"},
}

type queryOptions struct {
	serviceOptions
	query    string // the argument, or the flag
	pageSize int
}

func queryCommand(s streams) *urfave.Command {
	var o queryOptions
	return leaf(&urfave.Command{
		Name:      "query",
		Usage:     "run a query and print its rows, all pages of them",
		ArgsUsage: "[QUERY]",
		Description: "QUERY is in the IoT Hub query language, or @FILE, or -. For example:\n" +
			"   iotdm service query \"SELECT deviceId, properties.reported.rebootTime FROM devices\"\n" +
			"   iotdm service query \"SELECT * FROM devices WHERE tags.site = 'north'\" --jq '.[].deviceId'",
		Flags: concat([]urfave.Flag{
			&urfave.StringFlag{Name: "query", Aliases: []string{"q"}, Destination: &o.query, Usage: "the `QUERY`, instead of the argument"},
			&urfave.IntFlag{Name: "page-size", Destination: &o.pageSize, Usage: "fetch `N` rows at a time (default: the hub's choice)", DefaultText: "0"},
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if arg := ctx.Args().First(); arg != "" {
				if o.query != "" {
					return usagef("give the query as argument or with --query, not both")
				}
				o.query = arg
			}
			if o.query == "" {
				return usagef("QUERY is missing, for example \"SELECT * FROM devices\"")
			}
			if o.pageSize < 0 {
				return usagef("--page-size %d is negative", o.pageSize)
			}
			if err := o.output.check(); err != nil {
				return err
			}
			return runQuery(ctx.Context, s, o)
		},
	})
}

func runQuery(ctx context.Context, s streams, o queryOptions) error {
	query, err := readValue(s, "QUERY", o.query)
	if err != nil {
		return err
	}
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	rows := []json.RawMessage{}
	for row, err := range client.Query(ctx, query, o.pageSize) {
		if err != nil {
			return t.explain(ctx, err, noIdentity)
		}
		rows = append(rows, row)
	}
	return o.output.print(s, result{value: rows, columns: rowColumns(rows)})
}

// rowColumns are the columns of what a query found: a choice for whole twins,
// else all that any row has.
func rowColumns(rows []json.RawMessage) []column {
	if len(rows) > 0 && gjson.GetBytes(rows[0], "properties").Exists() && gjson.GetBytes(rows[0], "etag").Exists() {
		return twinColumns
	}
	doc, err := json.Marshal(rows)
	if err != nil {
		return nil
	}
	return memberColumns(gjson.ParseBytes(doc))
}
