package rest

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/configurations"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/twin"
)

// A configurationMetrics is the queries of a configuration and their results.
type configurationMetrics struct {
	Results map[string]int    `json:"results"`
	Queries map[string]string `json:"queries"`
}

func newConfigurationMetrics(metrics map[string]configurations.Metric) configurationMetrics {
	m := configurationMetrics{Results: make(map[string]int), Queries: make(map[string]string)}
	for name, metric := range metrics {
		m.Queries[name] = metric.Query
		if metric.Valid {
			m.Results[name] = metric.Result
		}
	}
	return m
}

// A configurationDoc is the document of a configuration.
type configurationDoc struct {
	ID            string                 `json:"id"`
	SchemaVersion *string                `json:"schemaVersion"`
	Labels        map[string]string      `json:"labels"`
	Content       configurations.Content `json:"content"`
	Target        string                 `json:"targetCondition"`
	Created       string                 `json:"createdTimeUtc"`
	Updated       string                 `json:"lastUpdatedTimeUtc"`
	Priority      int                    `json:"priority"`
	System        configurationMetrics   `json:"systemMetrics"`
	Custom        configurationMetrics   `json:"metrics"`
	ETag          string                 `json:"etag"`
}

// configurationDocs returns configurations as the service prints them.
func (d *Door) configurationDocs(r *request, list ...configurations.Configuration) ([]configurationDoc, error) {
	measured, err := d.configurations.Measure(r.Context(), list...)
	docs := make([]configurationDoc, len(measured))
	for n, c := range measured {
		docs[n] = configurationDoc{
			ID: c.ID, SchemaVersion: c.SchemaVersion, Labels: c.Labels, Content: c.Content, Target: c.TargetCondition,
			Created: twin.FormatTime(c.Created), Updated: twin.FormatTime(c.Updated), Priority: c.Priority,
			System: newConfigurationMetrics(c.System), Custom: newConfigurationMetrics(c.Custom), ETag: c.ETag(),
		}
	}
	return docs, err
}

// oneConfiguration answers with a configuration.
func (d *Door) oneConfiguration(r *request, c configurations.Configuration) (reply, error) {
	docs, err := d.configurationDocs(r, c)
	if err != nil {
		return reply{}, err
	}
	return reply{body: docs[0], etag: c.ETag()}, nil
}

func (d *Door) listConfigurations(r *request) (reply, error) {
	list := d.configurations.List()
	if n, err := strconv.Atoi(r.URL.Query().Get("top")); err == nil && n >= 1 {
		list = list[:min(n, len(list))]
	}
	docs, err := d.configurationDocs(r, list...)
	return reply{body: docs}, err
}

func (d *Door) getConfiguration(r *request) (reply, error) {
	c, err := d.configurations.Get(r.name)
	if err != nil {
		return reply{}, err
	}
	return d.oneConfiguration(r, c)
}

func (d *Door) putConfiguration(r *request) (reply, error) {
	// What only the hub writes, such as the times, comes back from clients and
	// is ignored, and so is the etag: the C# SDK sends both when it creates.
	var in struct {
		ID            string                      `json:"id"`
		SchemaVersion *string                     `json:"schemaVersion"`
		Labels        pairs                       `json:"labels"`
		Content       configurations.ContentInput `json:"content"`
		Target        string                      `json:"targetCondition"`
		Priority      number                      `json:"priority"`
		Metrics       struct {
			Queries pairs `json:"queries"`
		} `json:"metrics"`
	}
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	if in.ID != "" && in.ID != r.name {
		return reply{}, hub.ErrArgumentInvalid.With("id in the body is not the one of the path")
	}
	c, err := d.configurations.Put(configurations.Spec{
		ID: r.name, SchemaVersion: in.SchemaVersion, Labels: in.Labels, Content: in.Content.Content(),
		TargetCondition: in.Target, Priority: int(in.Priority), Metrics: in.Metrics.Queries,
	}, r.configurationMatch())
	if err != nil {
		return reply{}, err
	}
	return d.oneConfiguration(r, c)
}

// configurationMatch is ifMatch for configurations, whose etag the Python SDK
// sends without the quotes.
func (r *request) configurationMatch() hub.Match {
	if m := r.ifMatch(); !m.None() {
		return m
	}
	return hub.Match{ETag: r.Header.Get("If-Match")}
}

func (d *Door) deleteConfiguration(r *request) (reply, error) {
	return reply{status: http.StatusNoContent}, d.configurations.Delete(r.name, r.configurationMatch())
}

func (d *Door) applyContent(r *request) (reply, error) {
	var content configurations.ContentInput
	if err := r.decode(&content); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, d.configurations.Apply(r.id.Device, content.Content())
}

func (d *Door) testConfiguration(r *request) (reply, error) {
	var in struct {
		Target  string `json:"targetCondition"`
		Metrics pairs  `json:"customMetricQueries"`
	}
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	found := d.configurations.Test(in.Target, in.Metrics)
	var target json.RawMessage = []byte("null")
	if found.Target != "" {
		target = words.MustMarshal(found.Target)
	}
	return reply{body: struct {
		Target  json.RawMessage   `json:"targetConditionError"`
		Metrics map[string]string `json:"customMetricQueryErrors"`
	}{target, found.Metrics}}, nil
}
