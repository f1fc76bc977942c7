package hub

import (
	"context"
	"strings"

	"github.com/iotdm/iotdm/hub/query"
)

// A ConfigurationMetric is a query and the number of rows it has.
type ConfigurationMetric struct {
	Query  string
	Result int
	Valid  bool // the query could be run
}

// ConfigurationMetrics runs the queries of a configuration: those that every
// one has, and its own.
func (s *Server) ConfigurationMetrics(ctx context.Context, c Configuration) (system, custom map[string]ConfigurationMetric, err error) {
	system, custom = make(map[string]ConfigurationMetric), make(map[string]ConfigurationMetric)
	for name, text := range c.systemQueries() {
		if system[name], err = s.configurationMetric(ctx, text); err != nil {
			return nil, nil, err
		}
	}
	for name, text := range c.Metrics {
		if custom[name], err = s.configurationMetric(ctx, text); err != nil {
			return nil, nil, err
		}
	}
	return system, custom, nil
}

func (s *Server) configurationMetric(ctx context.Context, text string) (ConfigurationMetric, error) {
	m := ConfigurationMetric{Query: text, Valid: true}
	if text == "" {
		return m, nil // no target
	}
	q, err := query.Parse(text)
	if err != nil {
		m.Valid = false // it may be anything, and is not counted
		return m, nil
	}
	if !q.Aggregates() {
		m.Result, err = s.countMatching(ctx, q)
		return m, err
	}
	for continuation := ""; ; {
		page, err := s.Query(ctx, text, 1000, continuation)
		if err != nil {
			return m, err
		}
		m.Result += page.Rows
		if continuation = page.Continuation; continuation == "" {
			return m, nil
		}
	}
}

// countMatching returns how many rows a query has that does not aggregate. It
// makes none of them.
func (s *Server) countMatching(ctx context.Context, q *query.Query) (total int, err error) {
	enough := func(n int) bool { return q.Top() > 0 && n >= q.Top() }
	err = s.scan(ctx, q, "", func(sc *scan) error {
		return collect(ctx, sc,
			func() *int { return new(int) },
			func(n *int, _ *row) bool { *n++; return !enough(*n) },
			func(n *int) bool { total += *n; return !enough(total) })
	})
	if enough(total) {
		total = q.Top()
	}
	return total, err
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
