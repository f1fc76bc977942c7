package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// A methodsPage is the form of a direct method, and the calls that were made from here.
type methodsPage struct {
	deviceHead
	Form    methodForm
	Problem string       // what is wrong with the form
	Names   []string     // of methods that were called before, on any device
	Calls   []methodCall // on this device or module, the newest first
}

// A methodForm is what was typed.
type methodForm struct {
	Name, Payload    string
	Timeout, Connect string // seconds
}

var newMethodForm = methodForm{Timeout: "30", Connect: "0"}

// A methodCall is a call that has ended.
type methodCall struct {
	on      hubrest.Target
	At      time.Time
	Took    time.Duration
	Name    string
	Payload string // JSON; empty: none
	Status  int    // of the device's answer; 0: there is none
	Answer  string // JSON, as the device wrote it
	Problem string // why there is no answer
}

// Good reports whether the device said that it did as asked.
func (m methodCall) Good() bool { return m.Problem == "" && m.Status/100 == 2 }

// Seconds is how long it took.
func (m methodCall) Seconds() string {
	return strconv.FormatFloat(m.Took.Seconds(), 'f', 3, 64) + " s"
}

// What a console remembers of calls, in memory.
const (
	maxCalls     = 100
	maxCallNames = 50
	maxCallText  = 16 << 10 // of a payload or an answer; the rest is cut
)

// A callLog remembers calls of direct methods. Its zero value is empty.
type callLog struct {
	mu    sync.Mutex
	calls []methodCall // the newest last
	names []string     // the newest first
}

func (l *callLog) add(m methodCall) {
	m.Payload, m.Answer = cut(m.Payload, maxCallText), cut(m.Answer, maxCallText)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls = append(l.calls, m); len(l.calls) > maxCalls {
		l.calls = slices.Delete(l.calls, 0, 1)
	}
	l.names = slices.DeleteFunc(l.names, func(name string) bool { return name == m.Name })
	l.names = slices.Insert(l.names, 0, m.Name)
	l.names = l.names[:min(len(l.names), maxCallNames)]
}

// of returns the calls on an identity, the newest first, and all names.
func (l *callLog) of(on hubrest.Target) (calls []methodCall, names []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range slices.Backward(l.calls) {
		if m.on == on {
			calls = append(calls, m)
		}
	}
	return calls, slices.Clone(l.names)
}

// cut keeps a text from filling a page or the memory.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + " ..."
}

func (c *Console) methods(w http.ResponseWriter, r *http.Request) error {
	form := newMethodForm
	form.Name = cut(r.URL.Query().Get("name"), 128)
	return c.renderMethods(w, r, methodsPage{Form: form}, http.StatusOK)
}

func (c *Console) renderMethods(w http.ResponseWriter, r *http.Request, p methodsPage, status int) (err error) {
	on := targetOf(r)
	if p.deviceHead, err = c.head(r.Context(), on, "methods"); err != nil {
		return err
	}
	p.Calls, p.Names = c.calls.of(on)
	if p.Form == newMethodForm && len(p.Calls) > 0 { // as the last time
		last := p.Calls[0]
		p.Form.Name, p.Form.Payload = last.Name, last.Payload
	}
	c.render(w, r, page{Template: "methods", Title: titleOf(on, "Methods"), Section: "Devices", Status: status, Data: p})
	return nil
}

// callMethod calls a direct method and waits for the answer, which the page then shows.
func (c *Console) callMethod(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	form := methodForm{r.PostFormValue("name"), r.PostFormValue("payload"), r.PostFormValue("timeout"), r.PostFormValue("connect")}
	call, err := form.method()
	if err != nil {
		return c.renderMethods(w, r, methodsPage{Form: form, Problem: c.explain(r.Context(), err)}, http.StatusUnprocessableEntity)
	}
	http.NewResponseController(w).SetWriteDeadline(time.Time{}) // the call has limits of its own
	began := time.Now()
	answer, err := c.opt.Client.InvokeMethod(r.Context(), on, call)
	if r.Context().Err() != nil {
		return err
	}
	m := methodCall{on: on, At: c.now(), Took: time.Since(began), Name: call.Name, Payload: form.Payload, Status: answer.Status, Answer: indented(answer.Payload)}
	if odd, ok := errors.AsType[*hubrest.NotJSONError](err); ok {
		m.Status, m.Answer = odd.Status, strconv.Quote(cut(string(odd.Payload), maxCallText))
		m.Problem = "Its answer is not JSON"
	} else if err != nil {
		m.Answer, m.Problem = "", c.explainMethod(r.Context(), about(on, err))
	}
	c.calls.add(m)
	if m.Good() {
		return c.done(w, r, identityPath(on, "methods"), call.Name+" was answered with status "+strconv.Itoa(m.Status)+".")
	}
	text := m.Problem
	if text == "" {
		text = call.Name + " was answered with status " + strconv.Itoa(m.Status)
	}
	return c.failed(w, r, identityPath(on, "methods"), invalid(text))
}

// method reads the form.
func (f methodForm) method() (hubrest.Method, error) {
	m := hubrest.Method{Name: strings.TrimSpace(f.Name)}
	if m.Name == "" {
		return m, invalid("name the direct method")
	}
	if payload := strings.TrimSpace(f.Payload); payload != "" {
		if !json.Valid([]byte(payload)) {
			return m, invalid("the payload is not JSON; text needs quotes around it")
		}
		m.Payload = json.RawMessage(payload)
	}
	var err error
	if m.ResponseTimeout, err = secondsIn(f.Timeout, 5, 300); err != nil {
		return m, invalid("the time to answer is 5 to 300 seconds")
	}
	if m.ConnectTimeout, err = secondsIn(f.Connect, 0, 300); err != nil {
		return m, invalid("the time to connect is 0 to 300 seconds")
	}
	return m, nil
}

var errRange = errors.New("out of range")

// secondsIn reads a whole number of seconds.
func secondsIn(text string, least, most int) (time.Duration, error) {
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil || n < least || n > most {
		return 0, errRange
	}
	return time.Duration(n) * time.Second, nil
}

// explainMethod is explain for what only calls of methods meet.
func (c *Console) explainMethod(ctx context.Context, err error) string {
	switch {
	case errors.Is(err, hubrest.ErrNotOnline):
		return "It is not connected, or takes no direct methods; give it time to connect, and try again"
	case errors.Is(err, hubrest.ErrNotFound):
		return "It does not exist, or is disabled"
	case errors.Is(err, hubrest.ErrTimedOut):
		return "It did not answer in time, and may have acted all the same; give it longer"
	}
	return c.explain(ctx, err)
}
