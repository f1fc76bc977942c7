package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/internal/reboot"
)

// A task is what a device is asked to do by a direct method and takes longer for
// than an answer: to reboot, to update. Its reported properties tell what comes of
// it. An [Assignment] has one device do it, a rollout many.
type task struct {
	name       string   // as in ids of jobs and before "3 devices": reboot
	report     string   // what the device reports: "reboot", "end of the update"
	properties []string // the reported properties that tell
	lookAt     string   // the path in a twin at which to look for what came of it
	done       []string // the verdicts of a device that did it
	shortfall  string   // what is said of many devices if some did not
	columns    []output.Column
	contrary   string // the condition of devices on which it does not last; empty: there are none
	warning    string // what is said of them; %s is how many they are
	judge      func(before reported) judge
	success    func(Finding) string
	failure    func(Finding) string // says of a device what became of it instead
}

// A judge tells what comes of a task on one device.
type judge interface {
	// answered takes the payload of what the device answered, with a status of 2xx.
	answered(payload json.RawMessage)
	// find returns what the device's report says of the task. Without a Verdict it
	// says nothing new.
	find(now reported) Finding
}

// reported is what a device reports that tells of a task.
type reported struct {
	connection string // Connected, Disconnected, or empty: not known
	properties map[string]json.RawMessage
}

// A Finding is how far a task has come on a device.
type Finding struct {
	Verdict    string          `json:"verdict"`
	Reason     string          `json:"reason,omitempty"`
	Phase      string          `json:"phase,omitempty"`      // of an update that failed
	Version    string          `json:"version,omitempty"`    // of an update: what runs now
	RebootTime json.RawMessage `json:"rebootTime,omitempty"` // of a device that rebooted
	Reboot     json.RawMessage `json:"reboot,omitempty"`     // what the device reports of the reboot
	Firmware   json.RawMessage `json:"firmware,omitempty"`   // what the device reports of the update

	final bool // nothing more will come of it
}

// The verdicts that do not depend on the task.
const (
	verdictAnswered  = reboot.Answered
	verdictRefused   = reboot.Refused
	verdictFailed    = reboot.Failed
	verdictLost      = reboot.Lost
	verdictNotCalled = "not called" // of many: the job was stopped before its turn
)

// A taskReport is what is known of a task on a device.
type taskReport struct {
	Device  string          `json:"device"`
	Status  int             `json:"status,omitempty"`  // of the device's answer
	Payload json.RawMessage `json:"payload,omitempty"` // of the device's answer
	Finding
}

// answered takes a device's answer.
func (r *taskReport) answered(a hubrest.MethodAnswer, j judge) {
	r.Status, r.Payload, r.Verdict = a.Status, a.Payload, verdictAnswered
	if len(r.Payload) == 0 {
		r.Payload = json.RawMessage("null")
	}
	if a.Status/100 == 2 {
		j.answered(a.Payload)
		return
	}
	r.Finding = Finding{Verdict: verdictRefused, Reason: answeredStatus(a), final: true}
}

// answeredStatus is why a device that refused has not done as asked: its status,
// and its own words.
func answeredStatus(a hubrest.MethodAnswer) string {
	text := fmt.Sprintf("answered with status %d", a.Status)
	if words := ownWords(a.Payload); words != "" {
		text += ": " + words
	}
	return text
}

// ownWords are what a device says of its answer, in one line that is not too
// long: text, the member in which devices usually have it, or the payload itself.
func ownWords(payload json.RawMessage) string {
	doc := gjson.ParseBytes(payload)
	text := doc.String() // which is the JSON of what is no text
	if doc.IsObject() {
		for _, name := range []string{"message", "reason", "error.message", "error", "Response"} {
			if v := doc.Get(name); v.Type == gjson.String && v.Str != "" {
				text = v.Str
				break
			}
		}
	}
	return output.OneLine(phrase.Clip(strings.TrimSpace(text)))
}

// late is why a device is given up on of which that was found last.
func (k *task) late(limit command.Seconds, found Finding, now reported) string {
	text := "no " + k.report + " reported within " + limit.String()
	if found.Verdict != "" && found.Verdict != verdictAnswered {
		text += "; it was " + found.Verdict
	}
	switch now.connection {
	case "Connected":
		text += "; the device is connected"
	case "Disconnected":
		text += "; the device is not connected"
	}
	return text
}

// warn says of how many devices the task does not last on.
func (k *task) warn(ctx context.Context, s output.Streams, client *hubrest.Client, where string) error {
	if k.contrary == "" {
		return nil
	}
	sc, err := countScope(ctx, client, k.contrary+condition.And(where))
	if err == nil && sc.Devices > 0 {
		s.Note("Warning: "+k.warning, output.Count(sc.Devices, "device"))
	}
	return err
}

// reportedBy reads what one device reports.
func (k *task) reportedBy(ctx context.Context, client *hubrest.Client, device hubrest.Target) (reported, error) {
	twin, err := client.Twin(ctx, device)
	if err != nil {
		return reported{}, err
	}
	now := reported{connection: twin.ConnectionState, properties: make(map[string]json.RawMessage)}
	for _, name := range k.properties {
		if v := gjson.GetBytes(twin.Reported, name); v.Exists() {
			now.properties[name] = json.RawMessage(v.Raw)
		}
	}
	return now, nil
}

// selection is the query of what all devices report.
func (k *task) selection() string {
	query := "SELECT deviceId, connectionState"
	for _, name := range k.properties {
		query += ", properties.reported." + name + " AS " + name
	}
	return query + " FROM devices"
}

// parseRow reads a row of the selection.
func (k *task) parseRow(row json.RawMessage) (device string, now reported, err error) {
	members := make(map[string]json.RawMessage)
	if err := json.Unmarshal(row, &members); err != nil {
		return "", now, fmt.Errorf("find the devices: the hub's answer is not as documented: %w", err)
	}
	device, now.connection = gjson.ParseBytes(members["deviceId"]).String(), gjson.ParseBytes(members["connectionState"]).String()
	now.properties = members
	return device, now, nil
}

// mayPass reports whether reading a twin may work again later although it now
// fails with err: the network or the hub has trouble, but nothing was refused.
func mayPass(err error) bool {
	answer, ok := errors.AsType[*hubrest.Error](err)
	return !ok || answer.Status == http.StatusTooManyRequests || answer.Status >= 500
}
