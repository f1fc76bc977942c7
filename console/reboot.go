package console

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/reboot"
)

// A rebootsPage is the form of a reboot, and those that were asked for from here.
type rebootsPage struct {
	deviceHead
	Form    methodForm
	Problem string
	Reboots []rebootRow // the newest first
	Busy    bool        // one of them has no verdict yet
}

// A rebootRow is a reboot and how far it has come.
type rebootRow struct {
	on         hubrest.Target
	At         time.Time
	Method     string
	Status     int    // of the device's answer; 0: there is none
	Answer     string // JSON
	Verdict    string
	Reason     string
	RebootTime string
	Ended      time.Time // zero: it goes on
	Took       string
}

// Class is how the state of the verdict is shown.
func (b rebootRow) Class() string {
	switch {
	case b.Ended.IsZero():
		return "busy"
	case b.Verdict == reboot.Rebooted:
		return "ok"
	}
	return "stop"
}

const (
	verdictCalling = "calling"

	maxReboots  = 50               // that a console remembers
	rebootWait  = 10 * time.Minute // for the report, as "iotdm service reboot" waits
	rebootFirst = 200 * time.Millisecond
	rebootPause = 5 * time.Second // between two readings of the twin, in the end
)

// A rebootLog remembers reboots. Its zero value is empty.
type rebootLog struct {
	mu   sync.Mutex
	rows []*rebootRow // the newest last
}

var errManyReboots = &problem{status: http.StatusTooManyRequests, text: "so many reboots are under way from this console that it takes no more; reboot many devices by a job"}

// begin makes room for one more, which no other may be of the same device.
func (l *rebootLog) begin(row *rebootRow) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.rows {
		if other.on == row.on && other.Ended.IsZero() {
			return &problem{status: http.StatusConflict, text: "a reboot of this device is under way; wait for what comes of it"}
		}
	}
	if len(l.rows) >= maxReboots {
		ended := slices.IndexFunc(l.rows, func(b *rebootRow) bool { return !b.Ended.IsZero() })
		if ended < 0 {
			return errManyReboots
		}
		l.rows = slices.Delete(l.rows, ended, ended+1)
	}
	l.rows = append(l.rows, row)
	return nil
}

func (l *rebootLog) change(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// of returns the reboots of a device, the newest first.
func (l *rebootLog) of(on hubrest.Target) []rebootRow {
	l.mu.Lock()
	defer l.mu.Unlock()
	var rows []rebootRow
	for _, row := range slices.Backward(l.rows) {
		if row.on == on {
			rows = append(rows, *row)
		}
	}
	return rows
}

func (c *Console) reboots(w http.ResponseWriter, r *http.Request) error {
	form := newMethodForm
	form.Name = reboot.Method
	return c.renderReboots(w, r, rebootsPage{Form: form}, http.StatusOK)
}

func (c *Console) renderReboots(w http.ResponseWriter, r *http.Request, p rebootsPage, status int) (err error) {
	on := targetOf(r)
	if p.deviceHead, err = c.head(r.Context(), on, "reboot"); err != nil {
		return err
	}
	p.Reboots = c.rebooting.of(on)
	p.Busy = slices.ContainsFunc(p.Reboots, func(b rebootRow) bool { return b.Ended.IsZero() })
	c.render(w, r, page{Template: "reboot", Title: titleOf(on, "Reboot"), Section: "Devices", Status: status, Data: p})
	return nil
}

// reboot begins a reboot. What comes of it shows on the page.
func (c *Console) reboot(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	form := methodForm{r.PostFormValue("name"), r.PostFormValue("payload"), r.PostFormValue("timeout"), r.PostFormValue("connect")}
	call, err := form.method()
	if err != nil {
		return c.renderReboots(w, r, rebootsPage{Form: form, Problem: c.explain(r.Context(), err)}, http.StatusUnprocessableEntity)
	}
	t, err := c.opt.Client.Twin(r.Context(), on)
	if err != nil {
		return c.failed(w, r, identityPath(on, "reboot"), about(on, err))
	}
	row := &rebootRow{on: on, At: c.now(), Method: call.Name, Verdict: verdictCalling}
	if err := c.rebooting.begin(row); err != nil {
		return c.failed(w, r, identityPath(on, "reboot"), err)
	}
	judge := reboot.NewJudge(reboot.ReportOf(t.Reported))
	c.wg.Go(func() { c.watchReboot(c.ctx, row, call, judge) })
	return c.leave(w, r, identityPath(on, "reboot"), flash{})
}

// watchReboot calls the method and then reads the twin until it has the last word on the reboot.
func (c *Console) watchReboot(ctx context.Context, row *rebootRow, call hubrest.Method, judge *reboot.Judge) {
	end := func(verdict, reason string) {
		c.rebooting.change(func() {
			row.Verdict, row.Reason, row.Ended = verdict, cut(reason, 1000), c.now()
			row.Took = row.Ended.Sub(row.At).Round(100 * time.Millisecond).String()
		})
	}
	answer, err := c.opt.Client.InvokeMethod(ctx, row.on, call)
	if err != nil {
		end(reboot.Failed, c.explainMethod(ctx, about(row.on, err)))
		return
	}
	c.rebooting.change(func() {
		row.Status, row.Answer, row.Verdict = answer.Status, cut(indented(answer.Payload), maxCallText), reboot.Answered
	})
	if answer.Status/100 != 2 {
		end(reboot.Refused, "It answered with status "+strconv.Itoa(answer.Status))
		return
	}
	judge.Answered(answer.Payload)
	ctx, cancel := context.WithTimeout(ctx, rebootWait)
	defer cancel()
	for pause := rebootFirst; ; pause = min(pause*3/2, rebootPause) {
		t, err := c.opt.Client.Twin(ctx, row.on)
		if err == nil {
			f := judge.Find(reboot.ReportOf(t.Reported))
			c.rebooting.change(func() {
				if f.Verdict != "" {
					row.Verdict, row.Reason = f.Verdict, cut(f.Reason, 1000)
				}
				if f.RebootTime != nil {
					row.RebootTime = cut(gjson.ParseBytes(f.RebootTime).String(), 100)
				}
			})
			if f.Final {
				end(f.Verdict, f.Reason)
				return
			}
		} else if errors.Is(err, hubrest.ErrNotFound) || errors.Is(err, hubrest.ErrUnauthorized) {
			end(reboot.Failed, c.explain(ctx, about(row.on, err)))
			return
		}
		select {
		case <-ctx.Done():
			end(reboot.Lost, "Nothing more was reported within "+rebootWait.String())
			return
		case <-time.After(pause):
		}
	}
}
