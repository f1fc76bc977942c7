package configurations

import (
	"context"
	"errors"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/query"
)

// A Metric is a query and the number of rows it has.
type Metric struct {
	Query  string
	Result int
	Valid  bool // the query could be run
}

// A Measured is a configuration with its metrics by name: those that every one
// has, and its own.
type Measured struct {
	Configuration
	System, Custom map[string]Metric
}

// measureTime bounds how long the metrics of configurations are measured for one
// request. A list of 200 may have a thousand.
const measureTime = hub.MaxQueryTime

// Measure runs the queries of configurations. A metric for which there is no
// time has no result, as that of a query with a mistake (assumed: the service
// shows what it found at its last run, and before the first one nothing).
func (e *Engine) Measure(ctx context.Context, list ...Configuration) ([]Measured, error) {
	ctx, end := context.WithTimeoutCause(ctx, measureTime, hub.ErrQueryTime)
	defer end()
	all := make([]Measured, 0, len(list))
	for _, c := range list {
		m := Measured{c, make(map[string]Metric), make(map[string]Metric)}
		var err error
		for name, text := range c.systemQueries() {
			if m.System[name], err = e.measure(ctx, text); err != nil {
				return nil, err
			}
		}
		for name, text := range c.Metrics {
			if m.Custom[name], err = e.measure(ctx, text); err != nil {
				return nil, err
			}
		}
		all = append(all, m)
	}
	return all, nil
}

func (e *Engine) measure(ctx context.Context, text string) (Metric, error) {
	m := Metric{Query: text}
	if text == "" {
		m.Valid = true // no target
		return m, nil
	}
	q, err := query.Parse(text)
	if err != nil {
		return m, nil // it may be anything, and is not counted
	}
	m.Result, err = e.count(ctx, q, text)
	var refused *hub.Error
	if errors.As(err, &refused) {
		return m, nil // it takes too long
	}
	m.Valid = err == nil
	return m, err
}

// count returns how many rows a query has.
func (e *Engine) count(ctx context.Context, q *query.Query, text string) (rows int, err error) {
	if !q.Aggregates() {
		return e.hub.Count(ctx, q)
	}
	for continuation := ""; ; {
		page, err := e.hub.Query(ctx, text, hub.MaxQueryPage, continuation)
		if err != nil {
			return 0, err
		}
		rows += page.Rows
		if continuation = page.Continuation; continuation == "" {
			return rows, nil
		}
	}
}

// systemQueries are the texts that clients run again by themselves.
func (c Configuration) systemQueries() map[string]string {
	if c.Content.edge() {
		return c.deploymentQueries()
	}
	selection, targeted := "select deviceId from devices", ""
	condition := strings.TrimSpace(c.TargetCondition)
	if c.Content.modules() {
		selection = "select deviceId, moduleId from devices.modules"
		if condition != "" {
			targeted = "select deviceId, moduleId " + condition
		}
	} else if condition == "*" {
		targeted = selection
	} else if condition != "" {
		targeted = selection + " where " + condition
	}
	return map[string]string{
		"targetedCount": targeted,
		"appliedCount":  selection + " where configurations.[[" + c.ID + "]].status = 'Applied'",
	}
}
