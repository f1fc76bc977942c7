package bulk

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/twin"
)

// A Change is what a line changes of an identity or its twin.
type Change struct {
	Path string          `json:"path"`          // such as "status", "tags.site" or "desired.interval"
	Old  json.RawMessage `json:"old,omitempty"` // absent if there was nothing
	New  json.RawMessage `json:"new,omitempty"` // absent if there is nothing any more

	secret bool // a key, of which neither is shown
}

// String is the change for people.
func (c Change) String() string {
	if c.secret {
		return c.Path + ": another one"
	}
	value := func(doc json.RawMessage) string {
		if doc == nil {
			return "(none)"
		}
		return phrase.Clip(string(doc))
	}
	return c.Path + ": " + value(c.Old) + " -> " + value(c.New)
}

// changesOf is what the line want makes of what there is now. What a line leaves out
// of the identity is reset, but for keys; of the twin it stays.
func changesOf(now, want hubrest.BulkEntry) (changes []Change, err error) {
	if !onlyTwin(want) {
		if changes, err = identityChanges(now, want); err != nil {
			return nil, err
		}
	}
	for _, section := range []struct {
		name       string
		now, patch json.RawMessage
		merge      func(doc, patch []byte) (json.RawMessage, error)
	}{
		{"tags", now.Tags, want.Tags, twin.MergeTags},
		{"desired", now.Properties.Desired, want.Properties.Desired, mergeDesired},
	} {
		if section.patch == nil {
			continue
		}
		merged, err := section.merge(section.now, section.patch)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", section.name, err)
		}
		for _, c := range twin.Diff(section.now, merged) {
			changes = append(changes, Change{Path: section.name + "." + c.Path, Old: c.Old, New: c.New})
		}
	}
	return changes, nil
}

func mergeDesired(doc, patch []byte) (json.RawMessage, error) {
	if doc == nil {
		doc = []byte("{}")
	}
	return twin.Merge(doc, patch)
}

func identityChanges(now, want hubrest.BulkEntry) (changes []Change, err error) {
	compare := func(path string, old, new any) {
		o, errOld := valueOf(old)
		n, errNew := valueOf(new)
		if err = cmp.Or(err, errOld, errNew); !bytes.Equal(o, n) {
			changes = append(changes, Change{Path: path, Old: o, New: n})
		}
	}
	if want.ModuleID == "" {
		compare("status", cmp.Or(now.Status, hubrest.Enabled), cmp.Or(want.Status, hubrest.Enabled))
		compare("statusReason", now.StatusReason, want.StatusReason)
		compare("iotEdge", isEdge(now), isEdge(want))
		compare("parent", parentOf(now), parentOf(want))
	} else {
		compare("managedBy", now.ManagedBy, want.ManagedBy)
	}
	is, will := now.Authentication, want.Authentication
	compare("authentication", cmp.Or(is.Type, hubrest.AuthSAS), cmp.Or(will.Type, hubrest.AuthSAS))
	compare("primaryThumbprint", strings.ToUpper(is.X509Thumbprint.PrimaryThumbprint), strings.ToUpper(will.X509Thumbprint.PrimaryThumbprint))
	compare("secondaryThumbprint", strings.ToUpper(is.X509Thumbprint.SecondaryThumbprint), strings.ToUpper(will.X509Thumbprint.SecondaryThumbprint))
	if keys := will.SymmetricKey; keys.PrimaryKey != "" {
		if keys.PrimaryKey != is.SymmetricKey.PrimaryKey {
			changes = append(changes, Change{Path: "primaryKey", secret: true})
		}
		if keys.SecondaryKey != is.SymmetricKey.SecondaryKey {
			changes = append(changes, Change{Path: "secondaryKey", secret: true})
		}
	}
	return changes, err
}

func isEdge(e hubrest.BulkEntry) bool { return e.Capabilities != nil && e.Capabilities.IoTEdge }

// valueOf is v as JSON; nil if it is an empty text.
func valueOf(v any) (json.RawMessage, error) {
	doc, err := jsontext.Marshal(v)
	if string(doc) == `""` {
		return nil, err
	}
	return doc, err
}

// Counts are what became of lines, or would.
type Counts struct {
	Created, Updated, Unchanged, Deleted, Failed int

	// Of what was there and is changed or deleted.
	Connected, Keys, Identities, Desired, Tags int

	what string // that the lines are about; empty is identities
}

// add counts a line.
func (n *Counts) add(r LineResult) {
	switch {
	case r.failed:
		n.Failed++
		return
	case r.Result == "unchanged":
		n.Unchanged++
		return
	case r.did == "created":
		n.Created++
		return
	case r.did == "deleted":
		n.Deleted++
	default:
		n.Updated++
	}
	if r.connected {
		n.Connected++
	}
	var keys, identity, desired, tags int
	for _, c := range r.Changes {
		switch {
		case c.secret:
			keys = 1
		case strings.HasPrefix(c.Path, "desired."):
			desired = 1
		case strings.HasPrefix(c.Path, "tags."):
			tags = 1
		default:
			identity = 1
		}
	}
	n.Keys, n.Identities, n.Desired, n.Tags = n.Keys+keys, n.Identities+identity, n.Desired+desired, n.Tags+tags
}

// Lines is how many lines were counted.
func (n Counts) Lines() int { return n.Done() + n.Failed }

// Done is how many lines did not fail.
func (n Counts) Done() int { return n.Created + n.Updated + n.Unchanged + n.Deleted }

// String is the counts for people, "nothing done" without any.
func (n Counts) String() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{n.Created, "created"}, {n.Updated, "updated"}, {n.Unchanged, "unchanged"}, {n.Deleted, "deleted"}, {n.Failed, "failed"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprint(p.n, " ", p.what))
		}
	}
	if parts == nil {
		return "nothing done"
	}
	return strings.Join(parts, ", ")
}

// Question is what the lines would do to what is there, to be asked for before; ""
// if that is nothing.
func (n Counts) Question() string {
	if n.Updated+n.Deleted == 0 {
		return ""
	}
	var of []string
	for _, p := range []struct {
		n    int
		what string
	}{{n.Keys, "keys"}, {n.Identities, "status or other settings"}, {n.Desired, "desired properties"}, {n.Tags, "tags"}} {
		if p.n > 0 {
			of = append(of, fmt.Sprint(p.what, " of ", p.n))
		}
	}
	var parts []string
	for _, p := range []struct {
		n         int
		verb, how string
	}{{n.Updated, "change", " (" + strings.Join(of, ", ") + ")"}, {n.Deleted, "delete", ""}, {n.Created, "create", ""}} {
		if p.n == 0 {
			continue
		}
		noun := ""
		if parts == nil {
			noun = phrase.Choose(p.n == 1, " identity", " identities")
			if n.what != "" {
				noun = " " + n.what + phrase.Choose(p.n == 1, "", "s")
			}
		}
		parts = append(parts, fmt.Sprint(p.verb, " ", p.n, noun, p.how))
	}
	text := strings.Join(parts, " and ")
	text = strings.ToUpper(text[:1]) + text[1:]
	if n.what != "" { // which is not connected
		return text
	}
	return text + fmt.Sprintf("; %d of them connected", n.Connected)
}
