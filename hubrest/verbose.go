package hubrest

import (
	"log/slog"
	"regexp"
	"sync"
	"unicode/utf8"
)

// loggedBody is how much of a body a log line shows.
const loggedBody = 2 << 10

// A bodyText is a body as the log may show it: without the values of members
// whose names say that they are secret, and without an end that is far away.
type bodyText []byte

// secretMembers matches members of JSON objects such as "primaryKey": "...".
var secretMembers = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)("[^"]*(?:key|secret|password|signature|token|connectionstring|certificate)[^"]*"\s*:\s*)"(?:[^"\\]|\\.)*"?`)
})

func (b bodyText) LogValue() slog.Value {
	shown := secretMembers().ReplaceAll(b, []byte(`$1"***"`))
	if len(shown) <= loggedBody {
		return slog.StringValue(string(shown))
	}
	end := loggedBody
	for !utf8.RuneStart(shown[end]) {
		end--
	}
	return slog.StringValue(string(shown[:end]) + " ...")
}
