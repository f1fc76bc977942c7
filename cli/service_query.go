package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hubrest"
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

// jobRowColumns are what the table of the rows of devices.jobs shows.
var jobRowColumns = []column{
	{"JOB", "jobId"},
	{"DEVICE", "deviceId"},
	{"TYPE", "jobType"},
	{"STATUS", "status"},
	{"ANSWER", "outcome.deviceMethodResponse.status"},
	{"ERROR", "error.code"},
	{"ENDED", "endTimeUtc"},
}

type queryOptions struct {
	serviceOptions
	query    string // the argument, or the flag
	pageSize int
	from     string
	explain  bool
}

func queryCommand(s streams) *urfave.Command {
	var o queryOptions
	return leaf(&urfave.Command{
		Name:      "query",
		Usage:     "run a query and print its rows, all pages of them",
		ArgsUsage: "[QUERY]",
		Description: "QUERY is in the IoT Hub query language, or @FILE, or -. For example:\n" +
			"   iotdm service query \"SELECT deviceId, properties.reported.rebootTime FROM devices\"\n" +
			"   iotdm service query \"SELECT * FROM devices WHERE tags.site = 'north'\" --jq '.[].deviceId'\n" +
			"   iotdm service query \"SELECT * FROM devices\" -o json > twins.json\n" +
			"   iotdm service query \"SELECT COUNT() AS n FROM devices\" --from twins.json",
		Flags: concat([]urfave.Flag{
			&urfave.StringFlag{Name: "query", Aliases: []string{"q"}, Destination: &o.query, Usage: "the `QUERY`, instead of the argument"},
			&urfave.IntFlag{Name: "page-size", Destination: &o.pageSize, Usage: "fetch `N` rows at a time", DefaultText: "the hub's choice"},
			&urfave.StringFlag{Name: "from", Destination: &o.from, Usage: "query the twins in `FILE`, or - for standard input, instead of a hub: JSON, in an array or one after another"},
			&urfave.BoolFlag{Name: "explain", Destination: &o.explain, DisableDefaultText: true, Usage: "run the query, and print how its rows were found instead of the rows"},
		}, o.flags()),
		Action: func(ctx *urfave.Context) error {
			if arg := ctx.Args().First(); arg != "" {
				if o.query != "" {
					return usagef("give the query as argument or with --query, not both")
				}
				o.query = arg
			}
			if err := o.check(); err != nil {
				return err
			}
			return runQuery(ctx.Context, s, o)
		},
	})
}

var missingQuery = usagef("QUERY is missing, for example \"SELECT * FROM devices\"")

func (o *queryOptions) check() error {
	switch {
	case o.query == "":
		return missingQuery
	case o.pageSize < 0:
		return usagef("--page-size %d is negative", o.pageSize)
	case o.from != "" && o.pageSize > 0:
		return usagef("--page-size is for a hub; leave it out with --from")
	case o.from == "-" && o.query == "-":
		return usagef("standard input is either the query or the twins; give one of them otherwise")
	}
	return o.output.check()
}

func runQuery(ctx context.Context, s streams, o queryOptions) error {
	text, err := readValue(s, "QUERY", o.query)
	if err != nil {
		return err
	}
	if text == "" {
		return missingQuery
	}
	if o.from != "" {
		return runFileQuery(ctx, s, o, text)
	}
	t, client, err := o.open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if o.explain {
		began := time.Now()
		plan, err := client.ExplainQuery(ctx, text, o.pageSize)
		if err != nil {
			return t.explain(ctx, err, noIdentity)
		}
		if plan.Plan == "" {
			s.note("%s does not tell how it finds rows", t.host())
		}
		return printPlan(s, o.output, plan, time.Since(began))
	}
	rows := func(yield func(json.RawMessage, error) bool) {
		progress, n := newRowTally(s), 0
		defer progress.clear()
		for row, err := range client.Query(ctx, text, o.pageSize) {
			if err != nil {
				err = t.explain(ctx, err, noIdentity)
			}
			if !yield(row, err) {
				return
			}
			n++
			progress.show(n, count(n, "row"))
		}
	}
	return o.output.printRows(s, rows, tableOf(text))
}

// tableOf returns what chooses the columns of a query's result: those that it
// selects; a choice for whole twins and jobs; else all that the first rows have.
func tableOf(text string) func([]json.RawMessage) []column {
	q, err := query.Parse(text)
	if err != nil { // the hub knows better
		return rowColumns
	}
	var columns []column
	switch {
	case q.ItemType() == "DeviceJob":
		columns = jobRowColumns
	case q.ItemType() == "Twin" && q.From() == query.Devices:
		columns = slices.DeleteFunc(slices.Clone(twinColumns), func(c column) bool { return c.path() == "moduleId" })
	case q.ItemType() == "Twin":
		columns = twinColumns
	}
	for _, name := range q.Columns() {
		columns = append(columns, column{name, gjson.Escape(name)})
	}
	return func([]json.RawMessage) []column { return columns }
}

func rowColumns(rows []json.RawMessage) []column {
	doc, err := json.Marshal(rows)
	if err != nil {
		return nil
	}
	return memberColumns(gjson.ParseBytes(doc))
}

func printPlan(s streams, opt outputOptions, plan hubrest.QueryPlan, took time.Duration) error {
	value := struct {
		hubrest.QueryPlan
		Milliseconds float64 `json:"milliseconds"`
	}{plan, float64(took.Microseconds()) / 1000}
	return opt.print(s, result{value: value, text: func(w io.Writer) error {
		if plan.Plan != "" {
			fmt.Fprintf(w, "read     %s\nscanned  %s\n", plan.Plan, count(plan.Scanned, "row"))
		}
		_, err := fmt.Fprintf(w, "found    %s in %s, %.1f ms\n", count(plan.Rows, "row"), count(plan.Pages, "page"), value.Milliseconds)
		return err
	}})
}
