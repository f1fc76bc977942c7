package device

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"text/template"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/iotdm/iotdm/cli/internal/logs"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/mqttdevice"
)

// An AgentLog writes what an agent and its connection log as lines for people: what does not go
// well as other trouble of this program, the rest as a sentence.
type AgentLog struct{ Line func(slog.Level, string) }

// agentLines are the records that read better in other words, by message.
// What an agent logs besides is written as it comes.
var agentLines = map[string]string{
	"unknown direct method":        `Unknown method {{printf "%q" .method}}`,
	"direct method answered":       `Direct method {{printf "%q" .method}}: answered {{.status}} in {{.took}} ({{.result}})`,
	"desired property carried out": `Desired property {{.property}}, version {{.version}}: {{.status}} in {{.took}} ({{.result}})`,
	"factory reset":                `Factory reset: {{.status}}{{with .detail}} ({{.}}){{end}}`,
	"update":                       `Update to version {{.update}}: {{.phase}}{{with .detail}} ({{.}}){{end}}`,
	"update begins":                `Update to version {{.update}} begins`,
	"assigned to a hub":            `Assigned to {{.hub}} as device {{printf "%q" .as}}`,
	"update goes on":               `Update to version {{.update}} goes on: {{.phase}}`,

	"the machine has booted, and nobody had asked for it": `The machine has booted at {{.booted.Format "` + time.RFC3339 + `"}}, and nobody had asked for it`,
	"the machine has not rebooted":                        `the machine has not rebooted: {{.reason}}; the device goes on`,
	"the reboot is not reported":                          `the reboot is not reported: {{.error}}; the next connection tries again`,

	"the command of a direct method cannot run":    `direct method {{printf "%q" .method}}: {{.error}}; until that is mended it fails`,
	"the command of a desired property cannot run": `desired property {{.property}}: {{.error}}; until that is mended it is not carried out`,
	"the command of the factory reset cannot run":  `factory reset: {{.error}}; until that is mended it fails`,
	"the command of an update cannot run":          `updates: {{.error}}; until that is mended they fail`,

	"which desired properties were carried out is forgotten": `{{.error}}; desired properties may be carried out again`,
	"that a desired property was carried out is not stored":  `desired property {{.property}}: {{.error}}; a restart may carry it out again`,
	"what was known of updates is forgotten":                 `updates: {{.error}}; what was under way is forgotten`,
	"the kept assignment is not used":                        `{{.error}}; registering anew`,
	"the assignment is not kept":                             `{{.error}}; the next start registers anew`,
	"a property is not reported":                             `report {{.property}}: {{.error}}`,

	"the source of telemetry failed":        `telemetry: {{.error}}`,
	"the outbox is not sent":                `{{.error}}; trying again in {{.retry}}`,
	"messages that are queued are not sent": `{{.error}}; messages that are queued are not sent`,
}

// linkLines are those of a LinkLog.
var linkLines = map[string]string{
	"connected again": `Connected again after {{.away}}, at attempt {{.attempt}}`,
	"not registered":  `Not registered: {{.reason}}; trying again in {{.retry}}`,
	"not connected":   `Not connected: {{.reason}}; trying again in {{.retry}}`,
	"TCP is blocked":  `TCP is blocked ({{.reason}}); using WebSocket at {{.addr}}`,
	"TCP works again": `TCP works again; using it at {{.addr}}`,
}

// Enabled leaves out what is for debugging.
func (AgentLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// WithAttrs leaves out which device it is: there is one.
func (h AgentLog) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup has no groups: an agent's records are flat.
func (h AgentLog) WithGroup(string) slog.Handler { return h }

// Handle writes a record.
func (h AgentLog) Handle(_ context.Context, r slog.Record) error {
	text, ok := inOtherWords(r)
	if !ok {
		text = asItComes(r)
	}
	if r.Level >= slog.LevelWarn {
		text = "iotdm: " + text
	}
	h.Line(r.Level, text)
	return nil
}

// inOtherWords reports false for a record that agentLines does not have.
func inOtherWords(r slog.Record) (string, bool) {
	words := cmp.Or(agentLines[r.Message], linkLines[r.Message])
	if words == "" {
		return "", false
	}
	values := make(map[string]any)
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = a.Value.Any()
		return true
	})
	var text strings.Builder
	err := template.Must(template.New("").Option("missingkey=error").Parse(words)).Execute(&text, values)
	return text.String(), err == nil
}

// asItComes is the message and then the attributes; of an error that is the
// only one the name says nothing.
func asItComes(r slog.Record) string {
	text, sep := r.Message, ": "
	if first, size := utf8.DecodeRuneInString(text); r.Level < slog.LevelWarn {
		text = string(unicode.ToUpper(first)) + text[size:]
	}
	r.Attrs(func(a slog.Attr) bool {
		text += sep
		if a.Key != "error" || r.NumAttrs() > 1 {
			text += a.Key + " "
		}
		text += a.Value.String()
		sep = ", "
		return true
	})
	return text
}

// agentLogger returns where a device logs: in words, or as JSON.
func agentLogger(s output.Streams, o logs.Options) *slog.Logger {
	if o.JSON() {
		return slog.New(o.Handler(s, slog.LevelInfo))
	}
	return slog.New(AgentLog{logs.Line(s)})
}

// A LinkLog writes that a device has lost its connection, and has it back.
type LinkLog struct {
	Log                 *slog.Logger
	lost, overWebSocket bool
}

// Changed takes a change of the connection.
func (l *LinkLog) Changed(state mqttdevice.State) {
	switch {
	case state.Status == mqttdevice.Disconnected && state.Retry > 0:
		l.lost = true
		l.Log.Info("not connected", "reason", state.Reason, "retry", state.Retry.Round(100*time.Millisecond))
	case state.Status == mqttdevice.Connected:
		if l.lost {
			l.lost = false
			l.Log.Info("connected again", "away", state.Away.Round(100*time.Millisecond), "attempt", state.Attempts)
		}
		if over := state.Reason != nil; over != l.overWebSocket {
			l.overWebSocket = over
			if over {
				l.Log.Info("TCP is blocked", "reason", state.Reason, "addr", state.Addr)
			} else {
				l.Log.Info("TCP works again", "addr", state.Addr)
			}
		}
	}
}
