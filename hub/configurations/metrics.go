package configurations

import (
	"context"
	"strings"

	"github.com/iotdm/iotdm/hub/query"
)

// A Metric is a query and the number of rows it has.
type Metric struct {
	Query  string
	Result int
	Valid  bool // the query could be run
}

// Measure runs the queries of a configuration: those that every
// one has, and its own.
func (e *Engine) Measure(ctx context.Context, c Configuration) (system, custom map[string]Metric, err error) {
	system, custom = make(map[string]Metric), make(map[string]Metric)
	for name, text := range c.systemQueries() {
		if system[name], err = e.measure(ctx, text); err != nil {
			return nil, nil, err
		}
	}
	for name, text := range c.Metrics {
		if custom[name], err = e.measure(ctx, text); err != nil {
			return nil, nil, err
		}
	}
	return system, custom, nil
}

func (e *Engine) measure(ctx context.Context, text string) (Metric, error) {
	m := Metric{Query: text, Valid: true}
	if text == "" {
		return m, nil // no target
	}
	q, err := query.Parse(text)
	if err != nil {
		m.Valid = false // it may be anything, and is not counted
		return m, nil
	}
	if !q.Aggregates() {
		m.Result, err = e.hub.Count(ctx, q)
		return m, err
	}
	for continuation := ""; ; {
		page, err := e.hub.Query(ctx, text, 1000, continuation)
		if err != nil {
			return m, err
		}
		m.Result += page.Rows
		if continuation = page.Continuation; continuation == "" {
			return m, nil
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
