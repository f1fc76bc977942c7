package hub

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
)

// A ConfigurationSpec is what a caller says of an automatic configuration; see
// "Automatic device and module management using Azure IoT Hub".
type ConfigurationSpec struct {
	ID              string
	SchemaVersion   *string
	Labels          map[string]string
	Content         ConfigurationContent // cannot be changed
	TargetCondition string               // "" is no twin, "*" all devices
	Priority        int                  // of two that set the same, the bigger one counts
	Metrics         map[string]string    // queries by name
}

// A Configuration is an automatic configuration as the hub keeps it.
type Configuration struct {
	ConfigurationSpec
	Created time.Time
	Updated time.Time
	Version uint64 // the number behind the etag
}

// ETag returns the configuration's etag, without quotes.
func (c Configuration) ETag() string {
	return base64.StdEncoding.EncodeToString(strconv.AppendUint(nil, c.Version, 10))
}

// Limits of configurations, from "IoT Hub quotas and throttling".
const (
	maxConfigurations       = 100 // and as many IoT Edge deployments
	maxConfigurationMetrics = 5
)

var configurationIDPattern = regexp.MustCompile(`^[a-z0-9\-_.+%:#*?!(),=@$';~` + "`" + `]{1,128}$`)

func (spec *ConfigurationSpec) validate() error {
	if !configurationIDPattern.MatchString(spec.ID) {
		return ErrArgumentInvalid.with("configuration id '%s' must be 1 to 128 lower-case letters, digits and punctuation other than & ^ [ ] { } | \" < > / and backslash", clip(spec.ID))
	}
	if len(spec.Metrics) > maxConfigurationMetrics {
		return ErrConfigurationMetrics.with("a configuration has at most %d metrics", maxConfigurationMetrics)
	}
	if err := spec.Content.validate(); err != nil {
		return err
	}
	_, err := spec.target()
	return err
}

// moduleTarget begins the condition of a configuration for modules.
var moduleTarget = regexp.MustCompile(`(?i)^\s*from\s+devices\.modules\s+where\s`)

// bareCondition returns a target condition without moduleTarget.
func bareCondition(target string) string {
	return strings.TrimSpace(target[len(moduleTarget.FindString(target)):])
}

// target returns the query that finds the twins of the configuration, or nil
// if it has none.
func (spec *ConfigurationSpec) target() (*query.Query, error) {
	q, err := parseTarget(spec.TargetCondition)
	if err != nil {
		return nil, ErrConfigurationTarget.with("Invalid targetCondition. %v", err)
	}
	switch {
	case q == nil:
		return nil, nil
	case spec.Content.modules() && q.From() != query.Modules:
		return nil, ErrConfigurationTarget.with("Invalid targetCondition. That of moduleContent must begin with 'from devices.modules where'")
	case !spec.Content.modules() && q.From() == query.Modules:
		return nil, ErrConfigurationTarget.with("Invalid targetCondition. That of deviceContent and modulesContent must not begin with FROM")
	case spec.Content.edge():
		if q, err = query.ParseCondition(spec.edgeCondition()); err != nil {
			return nil, ErrConfigurationTarget.with("Invalid targetCondition. %v", err)
		}
	}
	return q, nil
}

func parseTarget(condition string) (*query.Query, error) {
	switch {
	case strings.TrimSpace(condition) == "":
		return nil, nil
	case moduleTarget.MatchString(condition):
		return query.Parse("SELECT * " + condition)
	default:
		return query.ParseCondition(strings.TrimSpace(condition))
	}
}

// ConfigurationErrors are what TestConfigurationQueries found.
type ConfigurationErrors struct {
	Target  string            // "" if the condition is good
	Metrics map[string]string // of the queries that are not
}

// TestConfigurationQueries says what is wrong with a target condition and with
// metrics.
func (s *Server) TestConfigurationQueries(condition string, metrics map[string]string) ConfigurationErrors {
	result := ConfigurationErrors{Metrics: make(map[string]string)}
	if _, err := parseTarget(condition); err != nil {
		result.Target = err.Error()
	}
	for name, text := range metrics {
		if _, err := query.Parse(text); err != nil {
			result.Metrics[name] = err.Error()
		}
	}
	return result
}

// PutConfiguration creates the configuration when m is no condition, and
// otherwise replaces its labels, target condition, priority and metrics. The
// twins change soon after.
//
// Errors: ErrArgumentInvalid, ErrConfigurationTarget, ErrConfigurationContent,
// ErrConfigurationMetrics, ErrConfigurationImmutable, ErrConfigurationAlreadyExists,
// ErrConfigurationNotFound, ErrPreconditionFailed, ErrTooManyConfigurations.
func (s *Server) PutConfiguration(spec ConfigurationSpec, m Match) (Configuration, error) {
	if err := spec.validate(); err != nil {
		return Configuration{}, err
	}
	var c Configuration
	err := s.store.Update(configurationPrefix, func(tx *store.Tx) error {
		now := s.now().UTC()
		before, err := txConfiguration(tx, spec.ID)
		found := err == nil
		switch {
		case err != nil && !errors.Is(err, ErrConfigurationNotFound):
			return err
		case m.none() && found:
			return ErrConfigurationAlreadyExists.with("A configuration with ID '%s' already exists.", spec.ID)
		case m.none():
			if s.configurations.count(spec.Content.edge()) >= maxConfigurations {
				return ErrTooManyConfigurations
			}
			before = Configuration{Created: now}
		case !found:
			return err
		case m.ETag != "" && m.ETag != before.ETag():
			return ErrPreconditionFailed
		case !before.Content.same(&spec.Content):
			return ErrConfigurationImmutable
		}
		c = Configuration{ConfigurationSpec: spec, Created: before.Created, Updated: now, Version: before.Version + 1}
		return s.writeConfiguration(tx, c)
	})
	return c, err
}

// DeleteConfiguration removes a configuration, and soon after what it has set
// from the twins, where the next one in priority then counts.
//
// Errors: ErrConfigurationNotFound, ErrPreconditionFailed.
func (s *Server) DeleteConfiguration(id string, m Match) error {
	return s.store.Update(configurationPrefix, func(tx *store.Tx) error {
		c, err := txConfiguration(tx, id)
		if err != nil {
			return err
		}
		if m.ETag != "" && m.ETag != c.ETag() {
			return ErrPreconditionFailed
		}
		tx.Delete(configurationKey(id))
		tx.OnCommit(func() { s.configurations.remove(id) })
		return nil
	})
}

// Configuration returns a configuration.
//
// Errors: ErrConfigurationNotFound.
func (s *Server) Configuration(id string) (Configuration, error) {
	for _, c := range s.configurations.list() {
		if c.ID == id {
			return c.Configuration, nil
		}
	}
	return Configuration{}, ErrConfigurationNotFound.with("%s", clip(id))
}

// Configurations returns all configurations in the order of their ids.
func (s *Server) Configurations() []Configuration {
	list := s.configurations.list()
	all := make([]Configuration, len(list))
	for i, c := range list {
		all[i] = c.Configuration
	}
	slices.SortFunc(all, func(a, b Configuration) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Keys of the store.
const (
	configurationPrefix = "configuration/"
	// configuredPrefix begins the keys of what configurations have set in a
	// twin: the paths, so that they can be taken back.
	configuredPrefix = "configured/"
)

func configurationKey(id string) []byte { return []byte(configurationPrefix + id) }

func (id ID) configuredKey() []byte { return []byte(configuredPrefix + id.String()) }

func txConfiguration(tx *store.Tx, id string) (c Configuration, err error) {
	data, err := tx.Get(configurationKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return c, ErrConfigurationNotFound.with("%s", clip(id))
	}
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

func (s *Server) writeConfiguration(tx *store.Tx, c Configuration) error {
	data, err := marshal(c)
	if err != nil {
		return err
	}
	active, err := newActiveConfiguration(c)
	if err != nil {
		return err
	}
	tx.Set(configurationKey(c.ID), data)
	tx.OnCommit(func() { s.configurations.put(active) })
	return nil
}

// loadConfigurations reads the configurations that the hub has.
func (s *Server) loadConfigurations() error {
	return s.store.Scan([]byte(configurationPrefix), prefixEnd([]byte(configurationPrefix)), func(_, v []byte) error {
		var c Configuration
		if err := json.Unmarshal(v, &c); err != nil {
			return err
		}
		active, err := newActiveConfiguration(c)
		if err == nil {
			s.configurations.put(active)
		}
		return err
	})
}
