// Package twinedit is the editing of twins by people: what of a twin they may
// change, the patch that leads from what they saw to what they want, and what
// becomes of it when somebody else has written in between. It does no I/O.
package twinedit

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/twin"
)

// A Document is what can be changed of a twin: two JSON objects.
type Document struct {
	Tags    json.RawMessage `json:"tags"`
	Desired json.RawMessage `json:"desired"`
}

// Of returns the part of t that can be changed.
func Of(t hubrest.Twin) Document {
	d := Document{Tags: json.RawMessage("{}"), Desired: json.RawMessage("{}")}
	if t.Tags != nil {
		d.Tags = t.Tags
	}
	if desired, err := twin.StripReadOnly(t.Desired); err == nil {
		d.Desired = desired
	}
	return d
}

// JSON returns d as one object, without white space.
func (d Document) JSON() ([]byte, error) { return jsontext.Marshal(d) }

// Parse reads an object with the members tags and desired, and no others. Members
// of theirs that are null are left out. The error is for who wrote it.
func Parse(doc []byte) (Document, error) {
	var d Document
	var sections map[string]json.RawMessage
	if err := json.Unmarshal(doc, &sections); err != nil || sections == nil {
		return d, errors.New("the document has to consist of tags and desired")
	}
	for name := range sections {
		if name != "tags" && name != "desired" {
			return d, fmt.Errorf("%q is neither tags nor desired; only these can be changed", phrase.Clip(name))
		}
	}
	for _, s := range []struct {
		name string
		to   *json.RawMessage
	}{{"tags", &d.Tags}, {"desired", &d.Desired}} {
		section, found := sections[s.name]
		if !found {
			return d, fmt.Errorf("%s is missing; write \"%s: {}\" to remove all of it", s.name, s.name)
		}
		if string(section) == "null" { // "tags:" and nothing below it
			section = json.RawMessage("{}")
		}
		if section[0] != '{' {
			return d, fmt.Errorf("%s is not an object", s.name)
		}
		merged, err := twin.Merge(nil, section) // without nulls, and each name once
		if err != nil {
			return d, err
		}
		*s.to = merged
	}
	return d, nil
}

// Patch returns the change that leads from base to mine, without an etag. Its
// sections are nil where there is nothing to change.
func Patch(base, mine Document) (hubrest.TwinChange, error) {
	var change hubrest.TwinChange
	tags, tagsErr := twin.MergePatch(base.Tags, mine.Tags)
	desired, desiredErr := twin.MergePatch(base.Desired, mine.Desired)
	if err := errors.Join(tagsErr, desiredErr); err != nil {
		return change, err
	}
	if string(tags) != "{}" {
		change.Tags = tags
	}
	if string(desired) != "{}" {
		change.Desired = desired
	}
	return change, nil
}

// Reconcile returns theirs with the changes that lead from base to mine, as
// [twin.Reconcile] does. Paths of conflicts begin with "tags." or "desired.".
func Reconcile(base, mine, theirs Document) (Document, []twin.Conflict) {
	var merged Document
	var conflicts []twin.Conflict
	add := func(section string, found []twin.Conflict) {
		for _, c := range found {
			c.Path = section + "." + c.Path
			conflicts = append(conflicts, c)
		}
	}
	var found []twin.Conflict
	merged.Tags, found = twin.Reconcile(base.Tags, mine.Tags, theirs.Tags)
	add("tags", found)
	merged.Desired, found = twin.Reconcile(base.Desired, mine.Desired, theirs.Desired)
	add("desired", found)
	return merged, conflicts
}

// Diff returns what differs between two documents. Paths begin with "tags." or
// "desired.".
func Diff(old, now Document) []twin.Change {
	var changes []twin.Change
	for _, section := range []struct {
		name     string
		old, now []byte
	}{{"tags", old.Tags, now.Tags}, {"desired", old.Desired, now.Desired}} {
		for _, c := range twin.Diff(section.old, section.now) {
			c.Path = section.name + "." + c.Path
			changes = append(changes, c)
		}
	}
	return changes
}
