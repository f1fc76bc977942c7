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
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/internal/phrase"
	"github.com/iotdm/iotdm/internal/twinedit"
	"github.com/iotdm/iotdm/internal/yamltext"
)

// writeTwinDocument writes d as YAML, or JSON, below comments.
func writeTwinDocument(d twinedit.Document, asJSON bool, comments []string) ([]byte, error) {
	var b bytes.Buffer
	for _, c := range comments {
		b.WriteString(strings.TrimRight(commentMark(asJSON)+" "+c, " ") + "\n")
	}
	doc, err := d.JSON()
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
func parseTwinDocument(text []byte, asJSON bool) (twinedit.Document, error) {
	var none twinedit.Document
	doc := withoutComments(text, asJSON)
	if asJSON {
		if err := json.Unmarshal(doc, new(any)); err != nil {
			if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
				above := len(text) - len(doc) + int(syntax.Offset)
				return none, fmt.Errorf("line %d: %w", 1+bytes.Count(text[:min(above, len(text))], []byte("\n")), syntax)
			}
			return none, err
		}
	} else {
		var err error
		// With its comments, so that errors name the right lines.
		if doc, err = yamlToJSON(text); err != nil {
			return none, err
		}
	}
	return twinedit.Parse(doc)
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
				return nil, fmt.Errorf("line %d: %q is there twice", key.Line, phrase.Clip(key.Value))
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
			return nil, at("%q is no number that JSON has; put text in quotes", phrase.Clip(n.Value))
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
