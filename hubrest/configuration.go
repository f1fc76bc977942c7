package hubrest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// A Configuration sets desired properties of all devices or modules that a condition chooses. See the article "Automatic
// device and module management using Azure IoT Hub".
//
// The hub keeps the times, SystemMetrics and the results of Metrics; it ignores them in what it is sent.
type Configuration struct {
	ID            string            `json:"id"` // lower case
	SchemaVersion string            `json:"schemaVersion,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	// Content can't be changed once the configuration is there.
	Content ConfigurationContent `json:"content"`
	// TargetCondition chooses the twins: what stands behind WHERE in a query of devices, "*" for all devices, empty for
	// none; for modules it begins with FROM devices.modules WHERE.
	TargetCondition string               `json:"targetCondition"`
	Priority        int                  `json:"priority"` // of two that set the same, the bigger one counts
	Metrics         ConfigurationMetrics `json:"metrics,omitzero"`
	SystemMetrics   ConfigurationMetrics `json:"systemMetrics,omitzero"`
	Created         Time                 `json:"createdTimeUtc,omitzero"`
	LastUpdated     Time                 `json:"lastUpdatedTimeUtc,omitzero"`
	ETag            string               `json:"etag,omitempty"` // without quotes
}

// ConfigurationContent is what a configuration sets: exactly one of the three. Keys are paths such as
// "properties.desired.interval"; null removes what is there.
type ConfigurationContent struct {
	Device  map[string]json.RawMessage            `json:"deviceContent,omitempty"`
	Module  map[string]json.RawMessage            `json:"moduleContent,omitempty"`
	Modules map[string]map[string]json.RawMessage `json:"modulesContent,omitempty"` // of an IoT Edge device, by module id
}

// ConfigurationMetrics are queries and how many rows they have.
type ConfigurationMetrics struct {
	Queries map[string]string `json:"queries,omitempty"`
	Results map[string]int64  `json:"results,omitempty"`
}

// ConfigurationErrors say what is wrong with the queries of a configuration.
type ConfigurationErrors struct {
	TargetCondition string            `json:"targetConditionError"` // empty: nothing
	Metrics         map[string]string `json:"customMetricQueryErrors"`
}

func configurationRequest(verb, method, id string) request {
	return request{what: fmt.Sprintf("%s configuration %q", verb, id), method: method, path: []string{"configurations", id}}
}

// Configuration returns a configuration, or ErrNotFound.
func (c *Client) Configuration(ctx context.Context, id string) (Configuration, error) {
	r := configurationRequest("get", http.MethodGet, id)
	r.repeat = repeatAlways
	var got Configuration
	_, err := c.do(ctx, r, &got)
	return got, err
}

// Configurations returns up to top configurations, of which a hub has at most 100, and as many IoT Edge deployments; 0 is
// all.
func (c *Client) Configurations(ctx context.Context, top int) ([]Configuration, error) {
	r := request{what: "list configurations", method: http.MethodGet, path: []string{"configurations"}, repeat: repeatAlways}
	if top > 0 {
		r.query = url.Values{"top": {strconv.Itoa(top)}}
	}
	var list []Configuration
	_, err := c.do(ctx, r, &list)
	return list, err
}

// CreateConfiguration creates a configuration, or fails with ErrAlreadyExists. The twins change some time later.
func (c *Client) CreateConfiguration(ctx context.Context, configuration Configuration) (Configuration, error) {
	r := configurationRequest("create", http.MethodPut, configuration.ID)
	configuration.ETag = ""
	r.body, r.repeat = configuration, repeatRefused
	var created Configuration
	_, err := c.do(ctx, r, &created)
	return created, err
}

// UpdateConfiguration replaces the labels, condition, priority and metrics of a configuration (take it from
// Configuration, change it, send it back whole), if its ETag is still that of the configuration (else
// ErrPreconditionFailed); an empty ETag replaces whatever is there.
func (c *Client) UpdateConfiguration(ctx context.Context, configuration Configuration) (Configuration, error) {
	r := configurationRequest("update", http.MethodPut, configuration.ID)
	r.body = configuration
	r.condition(configuration.ETag)
	var updated Configuration
	_, err := c.do(ctx, r, &updated)
	return updated, err
}

// DeleteConfiguration removes a configuration, and with it what it has set, if etag is that of the configuration; an
// empty etag removes it in any case.
func (c *Client) DeleteConfiguration(ctx context.Context, id, etag string) error {
	r := configurationRequest("delete", http.MethodDelete, id)
	r.ifMatch, r.repeat = quoteETag(etag), repeatAlways
	_, err := c.do(ctx, r, nil)
	return err
}

// ApplyConfigurationContent makes the modules of an IoT Edge device what the Modules of content say, once and without a
// configuration that goes on doing so. A module that has "properties.desired" in it has all its desired properties
// replaced; longer paths are merged. Configurations that target the device have the last word. The hub answers a device
// that is no IoT Edge device with status 400, and none at all with ErrNotFound.
func (c *Client) ApplyConfigurationContent(ctx context.Context, deviceID string, content ConfigurationContent) error {
	r := request{what: fmt.Sprintf("apply content to device %q", deviceID), method: http.MethodPost, repeat: repeatAlways}
	r.path, r.body = []string{"devices", deviceID, "applyConfigurationContent"}, content
	_, err := c.do(ctx, r, nil)
	return err
}

// TestConfigurationQueries says what is wrong with a target condition and with queries of metrics.
func (c *Client) TestConfigurationQueries(ctx context.Context, targetCondition string, metrics map[string]string) (ConfigurationErrors, error) {
	body := struct {
		TargetCondition string            `json:"targetCondition"`
		Metrics         map[string]string `json:"customMetricQueries,omitempty"`
	}{targetCondition, metrics}
	var found ConfigurationErrors
	_, err := c.do(ctx, request{what: "test the queries", method: http.MethodPost, path: []string{"configurations", "testQueries"}, body: body, repeat: repeatAlways}, &found)
	return found, err
}
