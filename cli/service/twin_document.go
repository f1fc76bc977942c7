package service

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/yamltext"
	"github.com/iotdm/iotdm/twin"
)

// An editedTwin is what can be changed of a twin: two JSON objects.
type editedTwin struct {
	tags, desired json.RawMessage
}

// editable returns the part of t that can be edited.
func editable(t hubrest.Twin) editedTwin {
	e := editedTwin{tags: json.RawMessage("{}"), desired: json.RawMessage("{}")}
	if t.Tags != nil {
		e.tags = t.Tags
	}
	if desired, err := twin.StripReadOnly(t.Desired); err == nil {
		e.desired = desired
	}
	return e
}

// document writes e as YAML, or JSON, below comments.
func (e editedTwin) document(asJSON bool, comments []string) ([]byte, error) {
	var b bytes.Buffer
	for _, c := range comments {
		b.WriteString(strings.TrimRight(commentMark(asJSON)+" "+c, " ") + "\n")
	}
	doc, err := jsontext.Marshal(struct {
		Tags    json.RawMessage `json:"tags"`
		Desired json.RawMessage `json:"desired"`
	}{e.tags, e.desired})
	if err != nil {
		return nil, err
	}
	if asJSON {
		err = output.PrintJSON(&b, doc)
	} else {
		err = output.PrintYAML(&b, doc)
	}
	return b.Bytes(), err
}

// commentMark begins a line of the comments at the top.
func commentMark(asJSON bool) string {
	if asJSON {
		return "//"
	}
	return "#"
}

// withoutComments returns the lines below the comments at the top.
func withoutComments(text []byte, asJSON bool) []byte {
	mark := []byte(commentMark(asJSON))
	for rest := text; ; {
		line, below, more := bytes.Cut(rest, []byte("\n"))
		if line = bytes.TrimSpace(line); len(line) > 0 && !bytes.HasPrefix(line, mark) {
			return rest
		}
		if rest = below; !more {
			return nil
		}
	}
}

// parseTwinDocument reads what the user has saved.
func parseTwinDocument(text []byte, asJSON bool) (editedTwin, error) {
	var e editedTwin
	doc := withoutComments(text, asJSON)
	if asJSON {
		if err := json.Unmarshal(doc, new(any)); err != nil {
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
				above := len(text) - len(doc) + int(syntax.Offset)
				return e, fmt.Errorf("line %d: %w", 1+bytes.Count(text[:min(above, len(text))], []byte("\n")), syntax)
			}
			return e, err
		}
	} else {
		var err error
		// With its comments, so that errors name the right lines.
		if doc, err = yamlToJSON(text); err != nil {
			return e, err
		}
	}
	var sections map[string]json.RawMessage
	if err := json.Unmarshal(doc, &sections); err != nil {
		return e, errors.New("the document has to consist of tags and desired")
	}
	for name := range sections {
		if name != "tags" && name != "desired" {
			return e, fmt.Errorf("%q is neither tags nor desired; only these can be changed", output.Clip(name))
		}
	}
	for _, s := range []struct {
		name string
		to   *json.RawMessage
	}{{"tags", &e.tags}, {"desired", &e.desired}} {
		section, found := sections[s.name]
		if !found {
			return e, fmt.Errorf("%s is missing; write \"%s: {}\" to remove all of it", s.name, s.name)
		}
		if string(section) == "null" { // "tags:" and nothing below it
			section = json.RawMessage("{}")
		}
		if section[0] != '{' {
			return e, fmt.Errorf("%s is not an object", s.name)
		}
		merged, err := twin.Merge(nil, section) // without nulls, and each name once
		if err != nil {
			return e, err
		}
		*s.to = merged
	}
	return e, nil
}

// yamlToJSON returns a document of YAML, in the part of it that JSON can say.
// Numbers keep their text where JSON has the same.
func yamlToJSON(text []byte) ([]byte, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("there is nothing in it")
		}
		return nil, errors.New(yamltext.Complaint(err))
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more than one document in it")
	}
	return appendYAML(nil, &doc, 0)
}

// maxYAMLDepth is more than a twin may have.
const maxYAMLDepth = 32

func appendYAML(b []byte, n *yaml.Node, depth int) ([]byte, error) {
	at := func(format string, args ...any) error {
		return fmt.Errorf("line %d: "+format, append([]any{n.Line}, args...)...)
	}
	if depth > maxYAMLDepth {
		return nil, at("too deep")
	}
	var err error
	switch n.Kind {
	case yaml.DocumentNode:
		return appendYAML(b, n.Content[0], depth)
	case yaml.MappingNode:
		b = append(b, '{')
		seen := make(map[string]bool)
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				return nil, at("a name has to be text")
			}
			if seen[key.Value] {
				return nil, fmt.Errorf("line %d: %q is there twice", key.Line, output.Clip(key.Value))
			}
			seen[key.Value] = true
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendJSONText(b, key.Value); err != nil {
				return nil, err
			}
			b = append(b, ':')
			if b, err = appendYAML(b, n.Content[i+1], depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, '}'), nil
	case yaml.SequenceNode:
		b = append(b, '[')
		for i, element := range n.Content {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendYAML(b, element, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	case yaml.ScalarNode:
		return appendScalar(b, n, at)
	}
	return nil, at("aliases can't be used here")
}

func appendScalar(b []byte, n *yaml.Node, at func(string, ...any) error) ([]byte, error) {
	switch n.ShortTag() {
	case "!!null":
		return append(b, "null"...), nil
	case "!!bool":
		var v bool
		if err := n.Decode(&v); err != nil {
			return nil, at("%s", yamltext.Complaint(err))
		}
		return strconv.AppendBool(b, v), nil
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) {
			return append(b, n.Value...), nil
		}
		var v float64
		if err := n.Decode(&v); err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, at("%q is no number that JSON has; put text in quotes", output.Clip(n.Value))
		}
		return append(b, strconv.FormatFloat(v, 'f', -1, 64)...), nil
	case "!!str", "!!timestamp":
		return appendJSONText(b, n.Value)
	}
	return nil, at("%s is not for twins", n.ShortTag())
}

func appendJSONText(b []byte, text string) ([]byte, error) {
	quoted, err := jsontext.Marshal(text)
	return append(b, quoted...), err
}
