package console

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/internal/condition"
	"github.com/iotdm/iotdm/internal/phrase"
)

// A deviceFilter chooses devices as the form of the list has it. What is empty chooses all.
type deviceFilter struct {
	Prefix string // of the device id
	State  string // connected or disconnected
	Status string // enabled or disabled
	Terms  []filterTerm
	Where  string // a condition in the query language
}

// A filterTerm compares one value of the twin.
type filterTerm struct{ Path, Operator, Value string }

// An operator is one of filterTerm, with its name for people.
type operator struct{ Operator, Name string }

// operators are those of terms, in the order of the form.
var operators = []operator{
	{"=", "is"}, {"!=", "is not"}, {"<", "is less than"}, {">", "is more than"},
	{"prefix", "begins with"}, {"set", "is there"}, {"unset", "is not there"},
}

// maxTerms bounds the terms of a filter.
const maxTerms = 8

// readFilter reads the values of the form. Terms without a path are left out.
func readFilter(v url.Values) deviceFilter {
	f := deviceFilter{Prefix: strings.TrimSpace(v.Get("prefix")), State: v.Get("state"), Status: v.Get("status"), Where: strings.TrimSpace(v.Get("where"))}
	at := func(name string, n int) string {
		if list := v[name]; n < len(list) {
			return strings.TrimSpace(list[n])
		}
		return ""
	}
	for n := range min(len(v["path"]), maxTerms) {
		if path := at("path", n); path != "" {
			f.Terms = append(f.Terms, filterTerm{path, at("operator", n), at("value", n)})
		}
	}
	return f
}

// values are what readFilter reads.
func (f deviceFilter) values() url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"prefix": f.Prefix, "state": f.State, "status": f.Status, "where": f.Where} {
		if value != "" {
			v.Set(name, value)
		}
	}
	for _, t := range f.Terms {
		v.Add("path", t.Path)
		v.Add("operator", t.Operator)
		v.Add("value", t.Value)
	}
	return v
}

// condition is the filter in the query language, empty for all devices.
func (f deviceFilter) condition() (string, error) {
	var all []string
	if f.Prefix != "" {
		all = append(all, "STARTSWITH(deviceId, "+condition.Quote(f.Prefix)+")")
	}
	switch f.State {
	case "":
	case "connected":
		all = append(all, "connectionState = 'Connected'")
	case "disconnected":
		all = append(all, "connectionState = 'Disconnected'")
	default:
		return "", invalid(fmt.Sprintf("the connection state %q is neither connected nor disconnected", phrase.Clip(f.State)))
	}
	switch f.Status {
	case "":
	case "enabled", "disabled":
		all = append(all, "status = "+condition.Quote(f.Status))
	default:
		return "", invalid(fmt.Sprintf("the status %q is neither enabled nor disabled", phrase.Clip(f.Status)))
	}
	for _, t := range f.Terms {
		term, err := t.condition()
		if err != nil {
			return "", err
		}
		all = append(all, term)
	}
	if f.Where != "" && f.Where != "*" {
		all = append(all, "("+f.Where+")")
	}
	return strings.Join(all, " AND "), nil
}

func (t filterTerm) condition() (string, error) {
	path, err := twinPath(t.Path)
	if err != nil {
		return "", err
	}
	switch t.Operator {
	case "set":
		return "IS_DEFINED(" + path + ")", nil
	case "unset":
		return "NOT IS_DEFINED(" + path + ")", nil
	case "prefix":
		return "STARTSWITH(" + path + ", " + condition.Quote(unquoted(t.Value)) + ")", nil
	}
	if !slices.ContainsFunc(operators, func(o operator) bool { return o.Operator == t.Operator }) {
		return "", invalid(fmt.Sprintf("%q is no comparison", phrase.Clip(t.Operator)))
	}
	return path + " " + t.Operator + " " + literal(t.Value), nil
}

// literal is a value as the query language has it: numbers, true and false as they are, and all else as text. What is in
// quotation marks is text in any case.
func literal(value string) string {
	var v any
	if err := json.Unmarshal([]byte(value), &v); err == nil {
		switch v.(type) {
		case float64, bool:
			return value
		}
	}
	return condition.Quote(unquoted(value))
}

// unquoted is a value without the quotation marks that it may have.
func unquoted(value string) string {
	var text string
	if err := json.Unmarshal([]byte(value), &text); err == nil {
		return text
	}
	return value
}

// twinPath is a path as people type it, such as "reported.firmware", in full.
func twinPath(path string) (string, error) {
	root, rest, nested := strings.Cut(path, ".")
	switch {
	case root == "desired" || root == "reported":
		path = "properties." + path
	case nested && rest != "" && (root == "tags" || root == "properties" || root == "capabilities" || root == "configurations"):
	case !nested && slices.Contains(twinFields, root):
	default:
		return "", invalid(fmt.Sprintf("%q is no path: it begins with tags., desired. or reported., or is one of %s", phrase.Clip(path), strings.Join(twinFields, ", ")))
	}
	if strings.ContainsAny(path, "()'\"\\ \t\r\n,<>=!/*") {
		return "", invalid(fmt.Sprintf("%q is no path: a name with such characters can be asked for in a condition", phrase.Clip(path)))
	}
	return path, nil
}

// twinFields are what is asked for of a twin besides its sections.
var twinFields = []string{
	"deviceId", "status", "statusReason", "connectionState", "lastActivityTime", "statusUpdateTime", "authenticationType",
	"cloudToDeviceMessageCount", "version", "modelId", "etag", "deviceScope",
}
