// Package condition writes conditions of IoT Hub's query language, and what
// stands around them in a query.
package condition

import "strings"

// Quote is text as a literal of the query language.
func Quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// AnyOf is the condition that a device is one of these.
func AnyOf(devices []string) string {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = Quote(d)
	}
	return "deviceId IN [" + strings.Join(names, ", ") + "]"
}

// Where is the end of a query for what meets the condition; "*" is all.
func Where(condition string) string {
	if strings.TrimSpace(condition) == "*" {
		return ""
	}
	return " WHERE " + condition
}

// And is the end of a query that has a condition already, for what meets this one
// too; "" and "*" are all.
func And(condition string) string {
	if condition == "" || strings.TrimSpace(condition) == "*" {
		return ""
	}
	return " AND (" + condition + ")"
}
