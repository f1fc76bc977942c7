package cli

import "strings"

// quoted is text in the query language.
func quoted(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// anyOf is the condition that names devices.
func anyOf(devices []string) string {
	names := make([]string, len(devices))
	for i, d := range devices {
		names[i] = quoted(d)
	}
	return "deviceId IN [" + strings.Join(names, ", ") + "]"
}

// whereClause is the end of a query for what meets the condition; "*" is all.
func whereClause(condition string) string {
	if strings.TrimSpace(condition) == "*" {
		return ""
	}
	return " WHERE " + condition
}

func and(condition string) string {
	if condition == "" || strings.TrimSpace(condition) == "*" {
		return ""
	}
	return " AND (" + condition + ")"
}
