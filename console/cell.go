package console

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// maxCell is how much of a value a cell of a table shows, in bytes.
const maxCell = 160

// cellOf is a JSON value as a cell of a table shows it: text without its quotation marks, nothing for null.
func cellOf(value json.RawMessage) string {
	text := string(value)
	switch {
	case len(value) == 0 || text == "null":
		return ""
	case value[0] == '"':
		var s string
		if json.Unmarshal(value, &s) == nil {
			text = s
		}
	default:
		var b bytes.Buffer
		if json.Compact(&b, value) == nil {
			text = b.String()
		}
	}
	return text
}

// clipped is the beginning of a cell that is too long to be shown whole.
func clipped(text string) string {
	if len(text) <= maxCell {
		return text
	}
	return strings.ToValidUTF8(text[:maxCell], "") + "…"
}

// valueAt returns the value at a path such as "tags.site" in a document, nil if there is none.
func valueAt(doc json.RawMessage, path string) json.RawMessage {
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if json.Unmarshal(doc, &object) != nil {
			return nil
		}
		doc = object[name]
	}
	return doc
}

// A member is one of an object, in the order of the text.
type member struct {
	Name  string
	Value json.RawMessage
}

// membersOf returns the members of an object in their order; none if it is no object.
func membersOf(doc json.RawMessage) []member {
	dec := json.NewDecoder(bytes.NewReader(doc))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	var all []member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil
		}
		m := member{Name: name.(string)}
		if dec.Decode(&m.Value) != nil {
			return nil
		}
		all = append(all, m)
	}
	return all
}

// namesOf returns the names of the members of rows, each once, in the order in which they come.
func namesOf(rows []json.RawMessage) []string {
	var names []string
	for _, row := range rows {
		for _, m := range membersOf(row) {
			if !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// indented is JSON for people to read.
func indented(doc json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, doc, "", "  ") != nil {
		return string(doc)
	}
	return b.String()
}
