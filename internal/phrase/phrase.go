// Package phrase has what messages for people are made of, on the command line and
// in the console.
package phrase

import "strings"

// Choose returns yes if the condition holds, and no otherwise.
func Choose(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

// Clip keeps what a file holds from filling a message.
func Clip(text string) string {
	const most = 140
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "..."
}
