package condition

import "strings"

// Quote is text in the query language.
func Quote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text) + "'"
}

// AnyOf is the condition that names devices.
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

func And(condition string) string {
	if condition == "" || strings.TrimSpace(condition) == "*" {
		return ""
	}
	return " AND (" + condition + ")"
}
