package sas

import "strings"

// Pasted returns a connection string without what copying it adds to it: white space around it and
// around its parts, quotes around all of it, and a ";" behind the last part, as from a portal, an
// .env file or a shell script. None of that can belong to a connection string, so nothing is
// guessed. White space inside of a value stays, for the parsers to refuse.
//
// It is for what people give. The parsers are strict, as those of the official SDKs are.
func Pasted(text string) string {
	text = strings.TrimSpace(text)
	for _, quote := range []string{`"`, "'"} {
		if inner, ok := strings.CutPrefix(text, quote); ok && strings.HasSuffix(inner, quote) {
			text = strings.TrimSpace(strings.TrimSuffix(inner, quote))
			break
		}
	}
	parts := strings.Split(text, ";")
	for i, part := range parts {
		name, value, found := strings.Cut(part, "=")
		if parts[i] = strings.TrimSpace(name); found {
			parts[i] += "=" + strings.TrimSpace(value)
		}
	}
	if last := len(parts) - 1; last > 0 && parts[last] == "" {
		parts = parts[:last]
	}
	return strings.Join(parts, ";")
}
