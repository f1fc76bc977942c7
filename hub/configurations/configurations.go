// Package configurations applies a hub's automatic configurations to its twins,
// IoT Edge deployments among them; see "Automatic device and module management
// using Azure IoT Hub". It stands on the rules of package hub.
package configurations

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// A Spec is what a caller says of an automatic configuration; see
// "Automatic device and module management using Azure IoT Hub".
type Spec struct {
	ID              string
	SchemaVersion   *string
	Labels          map[string]string
	Content         Content           // cannot be changed
	TargetCondition string            // "" is no twin, "*" all devices
	Priority        int               // of two that set the same, the bigger one counts
	Metrics         map[string]string // queries by name
}

// A Configuration is an automatic configuration as the hub keeps it.
type Configuration struct {
	Spec
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
	MaxConfigurations = 100 // and as many IoT Edge deployments
	maxMetrics        = 5
)

var idPattern = regexp.MustCompile(`^[a-z0-9\-_.+%:#*?!(),=@$';~` + "`" + `]{1,128}$`)

func (spec *Spec) validate() error {
	if !idPattern.MatchString(spec.ID) {
		return hub.ErrArgumentInvalid.With("configuration id '%s' must be 1 to 128 lower-case letters, digits and punctuation other than & ^ [ ] { } | \" < > / and backslash", words.Clip(spec.ID))
	}
	if len(spec.Metrics) > maxMetrics {
		return hub.ErrConfigurationMetrics.With("a configuration has at most %d metrics", maxMetrics)
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
func (spec *Spec) target() (*query.Query, error) {
	q, err := parseTarget(spec.TargetCondition)
	if err != nil {
		return nil, hub.ErrConfigurationTarget.With("Invalid targetCondition. %v", err)
	}
	switch {
	case q == nil:
		return nil, nil
	case spec.Content.modules() && q.From() != query.Modules:
		return nil, hub.ErrConfigurationTarget.With("Invalid targetCondition. That of moduleContent must begin with 'from devices.modules where'")
	case !spec.Content.modules() && q.From() == query.Modules:
		return nil, hub.ErrConfigurationTarget.With("Invalid targetCondition. That of deviceContent and modulesContent must not begin with FROM")
	case spec.Content.edge():
		if q, err = query.ParseCondition(spec.edgeCondition()); err != nil {
			return nil, hub.ErrConfigurationTarget.With("Invalid targetCondition. %v", err)
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

// Errors are what Test found.
type Errors struct {
	Target  string            // "" if the condition is good
	Metrics map[string]string // of the queries that are not
}

// Test says what is wrong with a target condition and with
// metrics.
func (e *Engine) Test(condition string, metrics map[string]string) Errors {
	result := Errors{Metrics: make(map[string]string)}
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

// Put creates the configuration when m is no condition, and
// otherwise replaces its labels, target condition, priority and metrics. The
// twins change soon after.
//
// Errors: ErrArgumentInvalid, ErrConfigurationTarget, ErrConfigurationContent,
// ErrConfigurationMetrics, ErrConfigurationImmutable, ErrConfigurationAlreadyExists,
// ErrConfigurationNotFound, ErrPreconditionFailed, ErrTooManyConfigurations.
func (e *Engine) Put(spec Spec, m hub.Match) (Configuration, error) {
	if err := spec.validate(); err != nil {
		return Configuration{}, err
	}
	var c Configuration
	err := e.store.Update(disk.Configuration, func(tx *store.Tx) error {
		now := e.hub.Now().UTC()
		before, err := read(tx, spec.ID)
		found := err == nil
		switch {
		case err != nil && !errors.Is(err, hub.ErrConfigurationNotFound):
			return err
		case m.None() && found:
			return hub.ErrConfigurationAlreadyExists.With("A configuration with ID '%s' already exists.", spec.ID)
		case m.None():
			if e.state.count(spec.Content.edge()) >= MaxConfigurations {
				return hub.ErrTooManyConfigurations
			}
			before = Configuration{Created: now}
		case !found:
			return err
		case m.ETag != "" && m.ETag != before.ETag():
			return hub.ErrPreconditionFailed
		case !before.Content.same(&spec.Content):
			return hub.ErrConfigurationImmutable
		}
		c = Configuration{Spec: spec, Created: before.Created, Updated: now, Version: before.Version + 1}
		return write(tx, c)
	})
	return c, err
}

// Delete removes a configuration, and soon after what it has set
// from the twins, where the next one in priority then counts.
//
// Errors: ErrConfigurationNotFound, ErrPreconditionFailed.
func (e *Engine) Delete(id string, m hub.Match) error {
	return e.store.Update(disk.Configuration, func(tx *store.Tx) error {
		c, err := read(tx, id)
		if err != nil {
			return err
		}
		if m.ETag != "" && m.ETag != c.ETag() {
			return hub.ErrPreconditionFailed
		}
		tx.Delete(key(id))
		return nil
	})
}

// Get returns a configuration.
//
// Errors: ErrConfigurationNotFound.
func (e *Engine) Get(id string) (Configuration, error) {
	for _, c := range e.state.list() {
		if c.ID == id {
			return c.Configuration, nil
		}
	}
	return Configuration{}, hub.ErrConfigurationNotFound.With("%s", words.Clip(id))
}

// List returns all configurations in the order of their ids.
func (e *Engine) List() []Configuration {
	list := e.state.list()
	all := make([]Configuration, len(list))
	for i, c := range list {
		all[i] = c.Configuration
	}
	slices.SortFunc(all, func(a, b Configuration) int { return strings.Compare(a.ID, b.ID) })
	return all
}

func key(id string) []byte { return disk.Of(disk.Configuration, id, "") }

func read(tx *store.Tx, id string) (c Configuration, err error) {
	data, err := tx.Get(key(id))
	if errors.Is(err, store.ErrNotFound) {
		return c, hub.ErrConfigurationNotFound.With("%s", words.Clip(id))
	}
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

func write(tx *store.Tx, c Configuration) error {
	data, err := jsontext.Marshal(c)
	if err != nil {
		return err
	}
	tx.Set(key(c.ID), data)
	return nil
}

// take makes known what is stored of a configuration now: of all that there are,
// and then of those that change, on whichever node.
func (e *Engine) take(change store.Change) error {
	if change.Value == nil {
		e.state.remove(string(change.Key[len(disk.Configuration):]))
		return nil
	}
	var c Configuration
	if err := json.Unmarshal(change.Value, &c); err != nil {
		return err
	}
	active, err := newActive(c)
	if err != nil {
		// An older hub took it, by its own rules. That keeps none from opening.
		e.log.Warn("the target condition of a configuration cannot be read: it has no twins until it is replaced or deleted",
			words.LogConfiguration, c.ID, words.LogReason, err)
	}
	e.state.put(active)
	return nil
}
