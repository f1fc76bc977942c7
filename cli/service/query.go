package service

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/tidwall/gjson"
	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/cli/internal/target"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hubrest"
)

// twinColumns are what the table of whole twins shows.
var twinColumns = []output.Column{
	{"DEVICE", "deviceId"},
	{"MODULE", "moduleId"},
	{"STATUS", "status"},
	{"CONNECTION", "connectionState"},
	{"VERSION", "version"},
	{"LAST ACTIVITY", "lastActivityTime"},
}

// jobRowColumns are what the table of the rows of devices.jobs shows.
var jobRowColumns = []output.Column{
	{"JOB", "jobId"},
	{"DEVICE", "deviceId"},
	{"TYPE", "jobType"},
	{"STATUS", "status"},
	{"ANSWER", "outcome.deviceMethodResponse.status"},
	{"ERROR", "error.code"},
	{"ENDED", "endTimeUtc"},
}

type queryOptions struct {
	target.Service
	query    string // the argument, or the flag
	pageSize int
	from     string
	explain  bool
}

func queryCommand(s output.Streams) *urfave.Command {
	var o queryOptions
	return command.Leaf(&urfave.Command{
		Name:      "query",
		Usage:     "run a query and print its rows, all pages of them",
		ArgsUsage: "[QUERY]",
		Description: "QUERY is in the IoT Hub query language, or @FILE, or -. For example:\n" +
			"   iotdm service query \"SELECT deviceId, properties.reported.rebootTime FROM devices\"\n" +
			"   iotdm service query \"SELECT * FROM devices WHERE tags.site = 'north'\" --jq '.[].deviceId'\n" +
			"   iotdm service query \"SELECT * FROM devices\" -o json > twins.json\n" +
			"   iotdm service query \"SELECT COUNT() AS n FROM devices\" --from twins.json\n\n" +
			"A hyphen that joins a name is part of it, as in tags.my-tag; a minus has blanks\n" +
			"around it. Other names stand in [[ ]], comments in /* */.",
		Flags: command.Concat([]urfave.Flag{
			&urfave.StringFlag{Name: "query", Aliases: []string{"q"}, Destination: &o.query, Usage: "the `QUERY`, instead of the argument"},
			&urfave.IntFlag{Name: "page-size", Destination: &o.pageSize, Usage: "fetch `N` rows at a time", DefaultText: "the hub's choice"},
			&urfave.StringFlag{Name: "from", Destination: &o.from, Usage: "query the twins in `FILE`, or - for standard input, instead of a hub: JSON, in an array or one after another"},
			&urfave.BoolFlag{Name: "explain", Destination: &o.explain, DisableDefaultText: true, Usage: "run the query, and print how its rows were found, and what in it reads like a mistake, instead of the rows"},
		}, o.Flags()),
		Action: func(ctx *urfave.Context) error {
			if arg := ctx.Args().First(); arg != "" {
				if o.query != "" {
					return fail.Usagef("give the query as argument or with --query, not both")
				}
				o.query = arg
			}
			if err := o.Check(); err != nil {
				return err
			}
			return runQuery(ctx.Context, s, o)
		},
	})
}

var missingQuery = fail.Usagef("QUERY is missing, for example \"SELECT * FROM devices\"")

// Check refuses options that make no sense together.
func (o *queryOptions) Check() error {
	switch {
	case o.query == "":
		return missingQuery
	case o.pageSize < 0:
		return fail.Usagef("--page-size %d is negative", o.pageSize)
	case o.from != "" && o.pageSize > 0:
		return fail.Usagef("--page-size is for a hub; leave it out with --from")
	case o.from == "-" && o.query == "-":
		return fail.Usagef("standard input is either the query or the twins; give one of them otherwise")
	}
	return o.Output.Check()
}

func runQuery(ctx context.Context, s output.Streams, o queryOptions) error {
	text, err := command.ReadValue(s, "QUERY", o.query)
	if err != nil {
		return err
	}
	if text == "" {
		return missingQuery
	}
	if o.from != "" {
		return runFileQuery(ctx, s, o, text)
	}
	t, client, err := o.Open(s)
	if err != nil {
		return err
	}
	defer client.Close()
	if o.explain {
		began := time.Now()
		plan, err := client.ExplainQuery(ctx, text, o.pageSize)
		if err != nil {
			return t.Explain(ctx, err, target.NoIdentity)
		}
		if plan.Plan == "" {
			s.Note("%s does not tell how it finds rows", t.Host())
		}
		return printPlan(s, o.Output, plan, time.Since(began), text)
	}
	rows := func(yield func(json.RawMessage, error) bool) {
		progress, n := output.NewRowTally(s), 0
		defer progress.Clear()
		for row, err := range client.Query(ctx, text, o.pageSize) {
			if err != nil {
				err = t.Explain(ctx, err, target.NoIdentity)
			}
			if !yield(row, err) {
				return
			}
			n++
			progress.Show(n, output.Count(n, "row"))
		}
	}
	return printRows(s, o.Output, rows, text)
}

// printRows prints the rows of a query, and if there are none what in it reads
// like a mistake.
func printRows(s output.Streams, opt output.Options, rows iter.Seq2[json.RawMessage, error], text string) error {
	found := false
	err := opt.PrintRows(s, func(yield func(json.RawMessage, error) bool) {
		for row, err := range rows {
			found = true
			if !yield(row, err) {
				return
			}
		}
	}, tableOf(text))
	if err == nil && !found {
		for _, hint := range hintsOf(text) {
			s.Note("Nothing was found. Hint: %s", hint)
		}
	}
	return err
}

// noteHints says what in a condition reads like a mistake: one that nothing meets
// would look like a success.
func noteHints(s output.Streams, condition string) {
	q, err := query.ParseCondition(condition)
	if err != nil {
		if q, err = query.Parse("SELECT * " + condition); err != nil { // of modules
			return
		}
	}
	for _, hint := range q.Hints() {
		s.Note("Hint: %s", hint)
	}
}

// hintsOf returns what in a query is allowed and reads like a mistake.
func hintsOf(text string) []string {
	q, err := query.Parse(text)
	if err != nil { // the hub knows better
		return nil
	}
	return q.Hints()
}

// tableOf returns what chooses the columns of a query's result: those that it
// selects; a choice for whole twins and jobs; else all that the first rows have.
func tableOf(text string) func([]json.RawMessage) []output.Column {
	q, err := query.Parse(text)
	if err != nil { // the hub knows better
		return rowColumns
	}
	var columns []output.Column
	switch {
	case q.ItemType() == "DeviceJob":
		columns = jobRowColumns
	case q.ItemType() == "Twin" && q.From() == query.Devices:
		columns = slices.DeleteFunc(slices.Clone(twinColumns), func(c output.Column) bool { return c.Path() == "moduleId" })
	case q.ItemType() == "Twin":
		columns = twinColumns
	}
	for _, name := range q.Columns() {
		columns = append(columns, output.Column{name, gjson.Escape(name)})
	}
	return func([]json.RawMessage) []output.Column { return columns }
}

func rowColumns(rows []json.RawMessage) []output.Column {
	doc, err := json.Marshal(rows)
	if err != nil {
		return nil
	}
	return output.MemberColumns(gjson.ParseBytes(doc))
}

func printPlan(s output.Streams, opt output.Options, plan hubrest.QueryPlan, took time.Duration, text string) error {
	value := struct {
		hubrest.QueryPlan
		Milliseconds float64  `json:"milliseconds"`
		Hints        []string `json:"hints,omitempty"`
	}{plan, float64(took.Microseconds()) / 1000, hintsOf(text)}
	return opt.Print(s, output.Result{Value: value, Text: func(w io.Writer) error {
		if plan.Plan != "" {
			fmt.Fprintf(w, "read     %s\nscanned  %s\n", plan.Plan, output.Count(plan.Scanned, "row"))
		}
		_, err := fmt.Fprintf(w, "found    %s in %s, %.1f ms\n", output.Count(plan.Rows, "row"), output.Count(plan.Pages, "page"), value.Milliseconds)
		for _, hint := range value.Hints {
			_, err = fmt.Fprintf(w, "hint     %s\n", hint)
		}
		return err
	}})
}
