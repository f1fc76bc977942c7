// Package twinwatch makes changes of twins out of the events by which the hub of
// iotdm tells of them, with who made them. It does no I/O.
package twinwatch

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/tidwall/gjson"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/twin"
)

// Sources are the events that tell of twins.
var Sources = []hubrest.EventSource{hubrest.SourceTwinChange, hubrest.SourceDeviceLifecycle}

// A State is what is known of a twin. Without it has a version of 0.
type State struct {
	Version                 int64
	Tags, Desired, Reported json.RawMessage
}

// StateOf returns the state of a twin that was read.
func StateOf(t hubrest.Twin) State {
	return State{t.Version, t.Tags, t.Desired, t.Reported}
}

// Diff returns what has changed until now. Paths begin with "tags.", "desired."
// or "reported.".
func (s State) Diff(now State) []twin.Change {
	var changes []twin.Change
	for _, section := range []struct {
		name     string
		old, now json.RawMessage
	}{{"tags", s.Tags, now.Tags}, {"desired", s.Desired, now.Desired}, {"reported", s.Reported, now.Reported}} {
		for _, c := range twin.Diff(section.old, section.now) {
			c.Path = section.name + "." + c.Path
			changes = append(changes, c)
		}
	}
	return changes
}

// An Event is what a hub tells of a twin.
type Event struct {
	On        hubrest.Target
	At        time.Time // zero if the event does not say
	By        string    // as "policy service"; empty: unknown
	Operation string    // such as updateTwin
	Version   int64     // of the twin, behind the change

	payload gjson.Result
}

// Parse reads an event as [hubrest.Client.Events] has it.
func Parse(event json.RawMessage) Event {
	e := gjson.ParseBytes(bytes.Clone(event)).Get("event")
	property := func(name string) string { return e.Get("properties.application." + name).String() }
	at, _ := time.Parse(time.RFC3339Nano, property("operationTimestamp"))
	payload := e.Get("payload")
	return Event{
		On: hubrest.Target{DeviceID: e.Get("origin").String(), ModuleID: e.Get("module").String()},
		At: at, By: property("iotdm-changed-by"), Operation: property("opType"),
		Version: payload.Get("version").Int(), payload: payload,
	}
}

// Gone reports whether the twin is gone with its identity.
func (e Event) Gone() bool {
	return e.Operation == "deleteDeviceIdentity" || e.Operation == "deleteModuleIdentity"
}

// Section returns what the event says of a section, which is "tags", "desired" or
// "reported": of an updateTwin a patch, else all of it. It is nil if that is
// nothing.
func (e Event) Section(name string) json.RawMessage {
	if name != "tags" {
		name = "properties." + name
	}
	if v := e.payload.Get(name); v.IsObject() {
		return json.RawMessage(v.Raw)
	}
	return nil
}

// What an event says of a state.
const (
	Old    = iota // nothing: the state has it already
	New           // another state
	Unsure        // there is another one, but changes in between are not known: read the twin
)

// After returns the state that an event leaves, which is good if it is New.
func (e Event) After(before State) (now State, what int, err error) {
	switch {
	case e.Version <= before.Version && e.Operation != "createDeviceIdentity":
		return before, Old, nil
	case e.Operation == "updateTwin" && e.Version == before.Version+1:
		now, err := before.patched(e)
		return now, New, err
	case e.Operation == "updateTwin":
		return before, Unsure, nil
	}
	return State{Version: e.Version, Tags: e.Section("tags"), Desired: e.Section("desired"), Reported: e.Section("reported")}, New, nil
}

// patched returns the state that the patches of an event leave.
func (s State) patched(e Event) (State, error) {
	s.Version = e.Version
	for name, section := range map[string]*json.RawMessage{"tags": &s.Tags, "desired": &s.Desired, "reported": &s.Reported} {
		patch := e.Section(name)
		if patch == nil {
			continue
		}
		plain, err := twin.StripReadOnly(patch)
		if err != nil {
			return s, err
		}
		if *section, err = twin.Merge(*section, plain); err != nil {
			return s, err
		}
	}
	return s, nil
}
