package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
)

// configurationPath is the address of a configuration's page.
func configurationPath(id string) string { return "/configuration/" + idPath(id) }

// What a configuration is for.
const (
	ofDevice  = "devices"
	ofModule  = "modules"
	ofRuntime = "IoT Edge devices"
)

func configurationKind(c hubrest.Configuration) string {
	switch {
	case len(c.Content.Modules) > 0:
		return ofRuntime
	case len(c.Content.Module) > 0:
		return ofModule
	}
	return ofDevice
}

// A configurationRow is a configuration in the list.
type configurationRow struct {
	hubrest.Configuration
	Kind      string
	Conflicts int // with others that set the same
}

// Count is the result of a metric that every configuration has.
func (c configurationRow) Count(name string) string {
	if n, counted := c.SystemMetrics.Results[name]; counted {
		return number(n)
	}
	return "not counted"
}

// configurationsPage is the data of the list of configurations.
type configurationsPage struct {
	Rows []configurationRow
	Age  answerAge
}

// An answerAge is how old what the hub has answered is.
type answerAge struct {
	At       time.Time
	Counting bool // the hub has not answered yet
	Old      bool // it is not of now
}

func (c *Console) newAnswerAge(at time.Time) answerAge {
	return answerAge{At: at, Counting: at.IsZero(), Old: !at.IsZero() && c.now().Sub(at) > time.Second}
}

// Refresh is in how many seconds to ask again; 0: the answer is of now.
func (a answerAge) Refresh() int {
	if a.Counting || a.Old {
		return busyRefresh
	}
	return 0
}

func (c *Console) configurations(w http.ResponseWriter, r *http.Request) error {
	all, at, err := c.allConfigurations(r.Context())
	if err != nil {
		return err
	}
	p := configurationsPage{Rows: make([]configurationRow, len(all)), Age: c.newAnswerAge(at)}
	for i, one := range all {
		p.Rows[i] = configurationRow{one, configurationKind(one), len(conflictsOf(one, all))}
	}
	slices.SortFunc(p.Rows, func(a, b configurationRow) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.ID, b.ID))
	})
	c.render(w, r, page{Template: "configurations", Title: "Configurations", Section: "Configurations", Data: p})
	return nil
}

// configurationPage is the data of the page of a configuration.
type configurationPage struct {
	configurationRow
	Content   string
	System    []metric
	Custom    []metric
	Conflicts []conflict
	Counted   bool // the twins that conflicts are about
	Metrics   answerAge
	Others    answerAge
	Twins     string
	Form      configurationForm
	Problem   string
}

// A metric is a query of a configuration, and how many rows it has.
type metric struct {
	Name, Query string
	Result      int64
	Known       bool
	Path        string // of the result of the query
}

func metricsOf(m hubrest.ConfigurationMetrics) []metric {
	var list []metric
	for _, name := range slices.Sorted(maps.Keys(m.Queries)) {
		n, known := m.Results[name]
		list = append(list, metric{name, m.Queries[name], n, known, "/queries?" + url.Values{"query": {m.Queries[name]}}.Encode()})
	}
	return list
}

func (c *Console) configuration(w http.ResponseWriter, r *http.Request) error {
	id := pathID(r, "id")
	one, at, err := c.oneConfiguration(r.Context(), id)
	if err != nil {
		return configurationError(id, err)
	}
	return c.showConfiguration(w, r, one, at, configurationFormOf(one), nil)
}

// showConfiguration shows the page, with what is wrong with the form if something is.
func (c *Console) showConfiguration(w http.ResponseWriter, r *http.Request, one hubrest.Configuration, at time.Time, form configurationForm, wrong error) error {
	all, allAt, err := c.allConfigurations(r.Context())
	if err != nil {
		return err
	}
	content, err := json.Marshal(one.Content)
	if err != nil {
		return err
	}
	p := configurationPage{configurationRow: configurationRow{Configuration: one, Kind: configurationKind(one)}, Content: indented(content), Form: form,
		System: metricsOf(one.SystemMetrics), Custom: metricsOf(one.Metrics), Conflicts: conflictsOf(one, all), Counted: r.URL.Query().Get("count") != "", Metrics: c.newAnswerAge(at), Others: c.newAnswerAge(allAt)}
	if p.Kind == ofDevice && one.TargetCondition != "" {
		p.Twins = "/devices?where=" + url.QueryEscape(one.TargetCondition)
	}
	if p.Counted {
		if err := c.countConflicts(r.Context(), one, p.Conflicts); err != nil {
			return err
		}
	}
	status := 0
	if wrong != nil {
		status, p.Problem = max(statusOf(wrong), http.StatusBadRequest), c.explain(r.Context(), wrong)
	}
	c.render(w, r, page{Template: "configuration", Title: "Configuration " + one.ID, Section: "Configurations", Status: status, Data: p})
	return nil
}

// A configurationForm is what was typed of a configuration, and what it would do.
type configurationForm struct {
	ID, Content, Target, Priority, Labels, Metrics, ETag string

	Asked bool // how many twins it would have was counted
	Want  int
	Kind  string
}

func configurationFormOf(c hubrest.Configuration) configurationForm {
	f := configurationForm{ID: c.ID, Target: c.TargetCondition, Priority: strconv.Itoa(c.Priority), ETag: c.ETag}
	for _, object := range []struct {
		values map[string]string
		to     *string
	}{{c.Labels, &f.Labels}, {c.Metrics.Queries, &f.Metrics}} {
		if len(object.values) > 0 {
			text, _ := json.MarshalIndent(object.values, "", "  ")
			*object.to = string(text)
		}
	}
	return f
}

func readConfigurationForm(r *http.Request) configurationForm {
	value := func(name string) string { return strings.TrimSpace(r.PostFormValue(name)) }
	return configurationForm{ID: value("id"), Content: value("content"), Target: value("target"), Priority: value("priority"),
		Labels: value("labels"), Metrics: value("metrics"), ETag: value("etag")}
}

// apply puts what was typed into c. The content of a configuration that there is stays.
func (f configurationForm) apply(c *hubrest.Configuration) error {
	c.TargetCondition, c.Priority, c.Labels, c.Metrics, c.ETag = f.Target, 0, nil, hubrest.ConfigurationMetrics{}, f.ETag
	if f.Priority != "" {
		n, err := strconv.Atoi(f.Priority)
		if err != nil || n < 0 {
			return invalid(fmt.Sprintf("the priority %q is not a number from 0", f.Priority))
		}
		c.Priority = n
	}
	for _, object := range []struct {
		name, text string
		to         *map[string]string
	}{{"labels", f.Labels, &c.Labels}, {"metrics", f.Metrics, &c.Metrics.Queries}} {
		if object.text == "" {
			continue
		}
		if err := checkJSON(object.text); err != nil {
			return invalid(fmt.Sprintf("%s is not JSON: %v", object.name, err))
		}
		if err := json.Unmarshal([]byte(object.text), object.to); err != nil {
			return invalid(object.name + " is not a JSON object whose values are texts")
		}
	}
	return nil
}

// contentOf reads the content of a new configuration, with and without its name around it.
func (f configurationForm) contentOf() (content hubrest.ConfigurationContent, err error) {
	if f.Content == "" {
		return content, invalid("what is it to set? give the content")
	}
	if err := checkJSON(f.Content); err != nil {
		return content, invalid(fmt.Sprintf("the content is not JSON: %v", err))
	}
	text := json.RawMessage(f.Content)
	if inner := valueAt(text, "content"); inner != nil {
		text = inner
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&content); err != nil || len(content.Device)+len(content.Module)+len(content.Modules) == 0 {
		return content, invalid("the content is not an object with deviceContent, moduleContent or modulesContent")
	}
	return content, nil
}

func (c *Console) newConfiguration(w http.ResponseWriter, r *http.Request) error {
	return c.showNewConfiguration(w, r, configurationForm{}, nil)
}

func (c *Console) showNewConfiguration(w http.ResponseWriter, r *http.Request, form configurationForm, wrong error) error {
	p := configurationPage{Form: form}
	status := 0
	if wrong != nil {
		status, p.Problem = max(statusOf(wrong), http.StatusBadRequest), c.explain(r.Context(), wrong)
	}
	c.render(w, r, page{Template: "configuration_new", Title: "New configuration", Section: "Configurations", Status: status, Data: p})
	return nil
}

func (c *Console) createConfiguration(w http.ResponseWriter, r *http.Request) error {
	form := readConfigurationForm(r)
	one := hubrest.Configuration{ID: form.ID}
	if form.ID == "" {
		return c.showNewConfiguration(w, r, form, invalid("give the configuration an id"))
	}
	err := form.apply(&one)
	if err == nil {
		one.Content, err = form.contentOf()
	}
	goOn := false
	if err == nil {
		goOn, err = c.admitConfiguration(r, one, &form)
	}
	if err != nil || !goOn {
		return c.showNewConfiguration(w, r, form, err)
	}
	if _, err := c.opt.Client.CreateConfiguration(r.Context(), one); err != nil {
		return c.showNewConfiguration(w, r, form, configurationError(form.ID, err))
	}
	c.forgetConfigurations()
	return c.done(w, r, configurationPath(form.ID), "The configuration is created. The twins change within moments.")
}

func (c *Console) updateConfiguration(w http.ResponseWriter, r *http.Request) error {
	id, form := pathID(r, "id"), readConfigurationForm(r)
	now, err := c.opt.Client.Configuration(r.Context(), id)
	if err != nil {
		return configurationError(id, err)
	}
	changed := now
	err = form.apply(&changed)
	goOn := false
	if err == nil {
		goOn, err = c.admitConfiguration(r, changed, &form)
	}
	if err != nil || !goOn {
		return c.showConfiguration(w, r, now, c.now(), form, err)
	}
	if _, err := c.opt.Client.UpdateConfiguration(r.Context(), changed); err != nil {
		return c.showConfiguration(w, r, now, c.now(), form, configurationError(id, err))
	}
	c.forgetConfigurations()
	return c.done(w, r, configurationPath(id), "The configuration is changed. The twins change within moments.")
}

// admitConfiguration reports whether the user has typed how many twins the configuration would have now. Until then the
// form asks. An error tells what is wrong with its queries.
func (c *Console) admitConfiguration(r *http.Request, one hubrest.Configuration, form *configurationForm) (bool, error) {
	wrong, err := c.opt.Client.TestConfigurationQueries(r.Context(), one.TargetCondition, one.Metrics.Queries)
	if err != nil {
		return false, err
	}
	if wrong.TargetCondition != "" {
		return false, invalid("the target condition: " + wrong.TargetCondition)
	}
	for _, name := range slices.Sorted(maps.Keys(wrong.Metrics)) {
		if text := wrong.Metrics[name]; text != "" {
			return false, invalid(fmt.Sprintf("the metric %s: %s", name, text))
		}
	}
	if one.TargetCondition == "" { // which chooses none
		return true, nil
	}
	if form.Want, err = c.countTwins(r.Context(), one, one.TargetCondition); err != nil {
		return false, err
	}
	form.Asked, form.Kind = true, configurationKind(one)
	typed := strings.TrimSpace(r.PostFormValue("confirm"))
	if typed != "" && typed != strconv.Itoa(form.Want) {
		return false, invalid(fmt.Sprintf("nothing was done: these are %d %s now; type %d to confirm", form.Want, form.Kind, form.Want))
	}
	return typed != "", nil
}

// countTwins counts the twins that a condition chooses for what the configuration is for.
func (c *Console) countTwins(ctx context.Context, one hubrest.Configuration, where string) (int, error) {
	query := "SELECT COUNT() AS number FROM devices" + condition.Where(where)
	switch kind := configurationKind(one); {
	case kind == ofRuntime:
		query = "SELECT COUNT() AS number FROM devices WHERE capabilities.iotEdge = true" + condition.And(where)
	case kind == ofModule:
		query = "SELECT COUNT() AS number " + where
	}
	n := 0
	for row, err := range c.opt.Client.Query(ctx, query, 0) {
		if err != nil {
			return 0, err
		}
		var group struct{ Number int }
		if err := json.Unmarshal(row, &group); err != nil {
			return 0, errors.New("count the twins: the hub's answer is not as documented")
		}
		n += group.Number
	}
	return n, nil
}

func (c *Console) deleteConfiguration(w http.ResponseWriter, r *http.Request) error {
	id := pathID(r, "id")
	err := confirmed(r, id)
	if err == nil {
		err = c.opt.Client.DeleteConfiguration(r.Context(), id, r.PostFormValue("etag"))
	}
	if err != nil {
		return c.failed(w, r, configurationPath(id), configurationError(id, err))
	}
	c.forgetConfigurations()
	return c.done(w, r, "/configurations", "Configuration "+id+" is deleted, and what it has set is taken back within moments.")
}

// configurationError words what a hub says of a configuration.
func configurationError(id string, err error) error {
	switch status := statusOf(err); {
	case errors.Is(err, hubrest.ErrNotFound):
		return &problem{status: status, text: "there is no configuration " + id + " on the hub"}
	case errors.Is(err, hubrest.ErrAlreadyExists):
		return &problem{status: status, text: "configuration " + id + " exists already"}
	case errors.Is(err, hubrest.ErrPreconditionFailed):
		return &problem{status: status, text: "configuration " + id + " was changed by somebody else in the meantime; look at it and try again"}
	}
	return err
}
