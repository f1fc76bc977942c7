package hub

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/iotdm/iotdm/twin"
)

// A configurationMetrics is the queries of a configuration and their results.
type configurationMetrics struct {
	Results map[string]int    `json:"results"`
	Queries map[string]string `json:"queries"`
}

func newConfigurationMetrics(metrics map[string]ConfigurationMetric) configurationMetrics {
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
	ID            string               `json:"id"`
	SchemaVersion *string              `json:"schemaVersion"`
	Labels        map[string]string    `json:"labels"`
	Content       ConfigurationContent `json:"content"`
	Target        string               `json:"targetCondition"`
	Created       string               `json:"createdTimeUtc"`
	Updated       string               `json:"lastUpdatedTimeUtc"`
	Priority      int                  `json:"priority"`
	System        configurationMetrics `json:"systemMetrics"`
	Custom        configurationMetrics `json:"metrics"`
	ETag          string               `json:"etag"`
}

func (s *Server) configurationDoc(r *restRequest, c Configuration) (configurationDoc, error) {
	system, custom, err := s.ConfigurationMetrics(r.Context(), c)
	return configurationDoc{
		ID: c.ID, SchemaVersion: c.SchemaVersion, Labels: c.Labels, Content: c.Content, Target: c.TargetCondition,
		Created: twin.FormatTime(c.Created), Updated: twin.FormatTime(c.Updated), Priority: c.Priority,
		System: newConfigurationMetrics(system), Custom: newConfigurationMetrics(custom), ETag: c.ETag(),
	}, err
}

func (s *Server) restListConfigurations(r *restRequest) (reply, error) {
	list := []configurationDoc{}
	limit := 2 * maxConfigurations // with the IoT Edge deployments
	if n, err := strconv.Atoi(r.URL.Query().Get("top")); err == nil && n >= 1 {
		limit = min(n, limit)
	}
	for _, c := range s.Configurations() {
		if len(list) == limit {
			break
		}
		doc, err := s.configurationDoc(r, c)
		if err != nil {
			return reply{}, err
		}
		list = append(list, doc)
	}
	return reply{body: list}, nil
}

func (s *Server) restGetConfiguration(r *restRequest) (reply, error) {
	c, err := s.Configuration(r.name)
	if err != nil {
		return reply{}, err
	}
	doc, err := s.configurationDoc(r, c)
	return reply{body: doc, etag: c.ETag()}, err
}

func (s *Server) restPutConfiguration(r *restRequest) (reply, error) {
	// What only the hub writes, such as the times, comes back from clients and
	// is ignored, and so is the etag: the C# SDK sends both when it creates.
	var in struct {
		ID            string               `json:"id"`
		SchemaVersion *string              `json:"schemaVersion"`
		Labels        map[string]string    `json:"labels"`
		Content       ConfigurationContent `json:"content"`
		Target        string               `json:"targetCondition"`
		Priority      int                  `json:"priority"`
		Metrics       struct {
			Queries map[string]string `json:"queries"`
		} `json:"metrics"`
	}
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	if in.ID != "" && in.ID != r.name {
		return reply{}, ErrArgumentInvalid.with("id in the body is not the one of the path")
	}
	c, err := s.PutConfiguration(ConfigurationSpec{
		ID: r.name, SchemaVersion: in.SchemaVersion, Labels: in.Labels, Content: in.Content,
		TargetCondition: in.Target, Priority: in.Priority, Metrics: in.Metrics.Queries,
	}, r.configurationMatch())
	if err != nil {
		return reply{}, err
	}
	doc, err := s.configurationDoc(r, c)
	return reply{body: doc, etag: c.ETag()}, err
}

// configurationMatch is ifMatch for configurations, whose etag the Python SDK
// sends without the quotes.
func (r *restRequest) configurationMatch() Match {
	if m := r.ifMatch(); !m.none() {
		return m
	}
	return Match{ETag: r.Header.Get("If-Match")}
}

func (s *Server) restDeleteConfiguration(r *restRequest) (reply, error) {
	return reply{status: http.StatusNoContent}, s.DeleteConfiguration(r.name, r.configurationMatch())
}

func (s *Server) restApplyContent(r *restRequest) (reply, error) {
	var content ConfigurationContent
	if err := r.decode(&content); err != nil {
		return reply{}, err
	}
	return reply{status: http.StatusNoContent}, s.ApplyConfigurationContent(r.id.Device, content)
}

func (s *Server) restTestConfiguration(r *restRequest) (reply, error) {
	var in struct {
		Target  string            `json:"targetCondition"`
		Metrics map[string]string `json:"customMetricQueries"`
	}
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	found := s.TestConfigurationQueries(in.Target, in.Metrics)
	var target json.RawMessage = []byte("null")
	if found.Target != "" {
		target = mustMarshal(found.Target)
	}
	return reply{body: struct {
		Target  json.RawMessage   `json:"targetConditionError"`
		Metrics map[string]string `json:"customMetricQueryErrors"`
	}{target, found.Metrics}}, nil
}
