package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/internal/reboot"
)

// maxCondition is how long a condition may be, in characters, so that what stands around it in a query has room, too: the
// service takes 8,192.
const maxCondition = 8000

// actPage is the data of the page on which something is done to many devices.
type actPage struct {
	Condition string // as jobs have it; empty: it is still to be given
	Link      string // to the list of these devices
	Scope     *scope
	First     []deviceRow
	Problem   string
	Form      url.Values // what was typed
	Reboot    string     // the direct method that reboots a device
}

// act shows which devices are meant and what can be done.
func (c *Console) act(w http.ResponseWriter, r *http.Request) error {
	where, err := chosen(r.URL.Query())
	if err != nil {
		return err
	}
	return c.showAct(w, r, where, nil)
}

// chosen is the condition of the devices that were selected in the list, or of all that it had.
func chosen(v url.Values) (string, error) {
	where := strings.TrimSpace(v.Get("where"))
	if v.Get("of") == "selected" {
		if len(v["id"]) == 0 {
			return "", invalid("no device is selected; tick some in the list, or take all that match")
		}
		where = condition.AnyOf(v["id"])
	}
	if utf8.RuneCountInString(where) > maxCondition {
		return "", invalid("the names of so many devices are too long for a hub's query; select fewer, or say what they have in common")
	}
	return where, nil
}

// showAct shows the page, with what is wrong if something was tried.
func (c *Console) showAct(w http.ResponseWriter, r *http.Request, where string, wrong error) error {
	p := actPage{Condition: where, Form: r.PostForm, Reboot: reboot.Method}
	status := 0
	if wrong != nil {
		status, p.Problem = max(statusOf(wrong), http.StatusBadRequest), c.explain(r.Context(), wrong)
	}
	if where != "" {
		p.Link = "/devices?where=" + url.QueryEscape(where)
		if err := c.countFirst(r, &p); err != nil {
			if !ofQuery(err) {
				return err
			}
			status = http.StatusBadRequest
			p.Problem = c.explain(r.Context(), err)
		}
	}
	c.render(w, r, page{Template: "act", Title: "Many devices", Section: "Devices", Status: status, Data: p})
	return nil
}

// countFirst fills in how many devices there are, and the first of them.
func (c *Console) countFirst(r *http.Request, p *actPage) (err error) {
	const first = 10
	if p.Scope, err = c.countScope(r.Context(), p.Condition); err != nil {
		return err
	}
	got, err := c.opt.Client.QueryPage(r.Context(), "SELECT deviceId, connectionState, status FROM devices"+condition.Where(p.Condition), hubrest.PageRequest{Size: first})
	if err != nil {
		return err
	}
	for _, doc := range got.Rows {
		var row deviceRow
		if err := json.Unmarshal(doc, &row); err != nil {
			return errors.New("look for the devices: the hub's answer is not as documented")
		}
		p.First = append(p.First, row)
	}
	return nil
}

// admitted returns the condition of an action on many devices, if the user has typed how many these are, as they are now.
func (c *Console) admitted(r *http.Request) (where string, sc *scope, err error) {
	where = strings.TrimSpace(r.PostFormValue("where"))
	if where == "" {
		return "", nil, invalid("which devices? give a condition, or * for all")
	}
	if sc, err = c.countScope(r.Context(), where); err != nil {
		return where, nil, err
	}
	typed := strings.TrimSpace(r.PostFormValue("confirm"))
	switch {
	case sc.Devices == 0:
		return where, nil, invalid("nothing was done: no device meets the condition")
	case typed != strconv.Itoa(sc.Devices):
		return where, nil, invalid(fmt.Sprintf("nothing was done: these are %d devices now; type %d to confirm", sc.Devices, sc.Devices))
	}
	return where, sc, nil
}

// actMethod creates a job that calls a direct method.
func (c *Console) actMethod(w http.ResponseWriter, r *http.Request) error {
	return c.actJob(w, r, func(j *hubrest.JobRequest) (err error) {
		m := &hubrest.Method{Name: strings.TrimSpace(r.PostFormValue("method"))}
		if m.Name == "" {
			return invalid("which direct method? give its name")
		}
		if m.Payload, err = optionalJSON(r, "payload"); err != nil {
			return err
		}
		if m.ResponseTimeout, err = secondsField(r, "timeout", "the time to answer", 5, 300); err != nil {
			return err
		}
		if m.ConnectTimeout, err = secondsField(r, "connect", "the time to connect", 0, 300); err != nil {
			return err
		}
		j.Method = m
		return nil
	})
}

// actTwin creates a job that patches twins.
func (c *Console) actTwin(w http.ResponseWriter, r *http.Request) error {
	return c.actJob(w, r, func(j *hubrest.JobRequest) error {
		change := &hubrest.TwinChange{}
		for _, section := range []struct {
			name string
			to   *any
		}{{"tags", &change.Tags}, {"desired", &change.Desired}} {
			doc, err := optionalJSON(r, section.name)
			if err != nil {
				return err
			}
			if raw, some := doc.(json.RawMessage); some {
				if raw[0] != '{' {
					return invalid(section.name + " is not a JSON object, such as {\"site\": \"north\"}")
				}
				*section.to = raw
			}
		}
		if change.Tags == nil && change.Desired == nil {
			return invalid("what is to change? give tags, or desired properties, or both")
		}
		j.Twin = change
		return nil
	})
}

// actJob creates a job for the devices of the form. What fills in what it does.
func (c *Console) actJob(w http.ResponseWriter, r *http.Request, what func(*hubrest.JobRequest) error) error {
	j := hubrest.JobRequest{ID: c.newJobID()}
	err := what(&j)
	if err == nil {
		j.Start, err = startField(r)
	}
	if err == nil {
		var maxTime time.Duration
		maxTime, err = secondsField(r, "max", "how long the job may run", 0, 30*24*60)
		j.MaxTime = maxTime * 60 // which is in minutes
	}
	where := r.PostFormValue("where")
	if err == nil {
		j.Condition, _, err = c.admitted(r)
	}
	var job hubrest.Job
	if err == nil {
		job, err = c.opt.Client.CreateJob(r.Context(), j)
	}
	if err != nil {
		return c.showAct(w, r, where, err)
	}
	return c.done(w, r, jobPath(job.ID), "The job is with the hub.")
}

// newJobID makes an id that sorts by time, as those of the command line do.
func (c *Console) newJobID() string {
	return "console-" + c.now().UTC().Format("20060102-150405") + "-" + secret()[:6]
}

// optionalJSON is the JSON of a field as a json.RawMessage, nil if the field is empty.
func optionalJSON(r *http.Request, name string) (any, error) {
	text := strings.TrimSpace(r.PostFormValue(name))
	if text == "" {
		return nil, nil
	}
	if err := checkJSON(text); err != nil {
		return nil, invalid(fmt.Sprintf("%s is not JSON: %v", name, err))
	}
	return json.RawMessage(text), nil
}

// checkJSON says where a text is not JSON.
func checkJSON(text string) error {
	var v json.RawMessage
	err := json.Unmarshal([]byte(text), &v)
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		before := text[:min(int(e.Offset), len(text))]
		return fmt.Errorf("%v in line %d", e, 1+strings.Count(before, "\n"))
	}
	return err
}

// secondsField is a number of seconds within a range, 0 if the field is empty.
func secondsField(r *http.Request, name, what string, least, most int) (time.Duration, error) {
	text := strings.TrimSpace(r.PostFormValue(name))
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, invalid(fmt.Sprintf("%s %q is not a number within %d to %d", what, phrase.Clip(text), least, most))
	}
	return time.Duration(n) * time.Second, nil
}

// startField is when a job is to start, in UTC; zero is now.
func startField(r *http.Request) (time.Time, error) {
	text := strings.TrimSpace(r.PostFormValue("start"))
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalid(fmt.Sprintf("the start %q is no time such as 2026-12-24T06:00", phrase.Clip(text)))
}
