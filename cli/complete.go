package cli

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/internal/condition"
)

// patience bounds what a person waits for after pressing Tab.
const patience = 2 * time.Second

// most bounds the candidates that are asked of a hub.
const most = "200"

// A candidates function returns what the value may be that is typed.
type candidates func(ctx context.Context, at place) []string

// A place is where on a command line something is typed.
type place struct {
	hub    []string // the flags that say which hub
	device string   // that the command is about; "" if it is not known yet
	typed  string
}

// complete prints the candidates for the value that is being typed, and reports
// whether it is one that a hub or this program knows. Everything else, such as
// the names of commands and flags, is urfave's; see completionArguments.
func complete(ctx context.Context, s output.Streams, commands []*urfave.Command, args []string) bool {
	if len(args) < 3 || args[len(args)-1] != command.Completing {
		return false
	}
	words, typed := args[:len(args)-2], args[len(args)-2]
	cmd, rest := command.FindLeaf(commands, words)
	if cmd == nil {
		return false
	}
	of := valueCandidates(cmd, rest, typed)
	if of == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, c := range of(ctx, place{hub: hubWords(cmd, rest), device: deviceOf(cmd, rest), typed: typed}) {
		if strings.HasPrefix(c, typed) {
			s.Print("%s", c)
		}
	}
	return true
}

// completionArguments are args as urfave's own completion takes them: without
// the word being typed if nothing of it has been typed yet.
func completionArguments(args []string) []string {
	if n := len(args); n > 2 && args[n-1] == command.Completing && args[n-2] == "" {
		return append(slices.Clone(args[:n-2]), command.Completing)
	}
	return args
}

// valueCandidates tells what the word typed behind rest may be, or returns nil.
func valueCandidates(cmd *urfave.Command, rest []string, typed string) candidates {
	if len(rest) > 0 && strings.HasPrefix(rest[len(rest)-1], "-") {
		name := strings.TrimLeft(rest[len(rest)-1], "-")
		if f := command.OurFlag(cmd, name); f != nil && command.TakesValue(f) {
			if choice, ok := f.(command.Choice); ok {
				return oneOf(choice.Values...)
			}
			return flagCandidates[f.Names()[0]]
		}
	}
	if strings.HasPrefix(typed, "-") {
		return nil
	}
	return argumentCandidates[command.ArgumentWord(cmd, len(positionals(cmd, rest)))]
}

// positionals are the words that are neither flags nor their values.
func positionals(cmd *urfave.Command, words []string) (found []string) {
	for i := 0; i < len(words); i++ {
		if !strings.HasPrefix(words[i], "-") {
			found = append(found, words[i])
		} else if f := command.OurFlag(cmd, strings.TrimLeft(words[i], "-")); f != nil && command.TakesValue(f) {
			i++
		}
	}
	return found
}

// deviceOf returns the device that words name.
func deviceOf(cmd *urfave.Command, words []string) string {
	for i, word := range words {
		name, value, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		f := command.OurFlag(cmd, name)
		switch {
		case !strings.HasPrefix(word, "-") || f == nil || f.Names()[0] != "device":
		case hasValue:
			return value
		case i+1 < len(words):
			return words[i+1]
		}
	}
	if found := positionals(cmd, words); len(found) > 0 && command.ArgumentWord(cmd, 0) == "DEVICE" {
		return found[0]
	}
	return ""
}

// eventSources are what events tell of.
var eventSources = []string{"telemetry", "twin", "lifecycle", "connection"}

// flagCandidates are by the names of flags.
var flagCandidates = map[string]candidates{
	"ack":                 oneOf("none", "positive", "negative", "full"),
	"allocation-policy":   oneOf("hashed", "geolatency", "static", "custom"),
	"attestation-type":    oneOf("symmetricKey", "x509"),
	"config-id":           configurationIDs,
	"consumer-group":      consumerGroups,
	"device":              deviceIDs,
	"enrollment-id":       enrollmentIDs,
	"event-hub-sources":   oneOf(eventSources...),
	"group-id":            enrollmentGroupIDs,
	"job":                 jobIDs,
	"method":              methodNames,
	"module":              moduleIDs,
	"output":              oneOf("json", "table", "tsv", "yaml"),
	"properties":          oneOf("sys", "app", "anno", "all"),
	"provisioning-status": oneOf("enabled", "disabled"),
	"reprovision-policy":  oneOf("reprovisionandmigratedata", "reprovisionandresetdata", "never"),
	"source":              oneOf(eventSources...),
	"transport":           oneOf("auto", "mqtt", "ws"), // of devices
}

// argumentCandidates are by what the help calls an argument.
var argumentCandidates = map[string]candidates{
	"CERTIFICATE":   listed("hub", "ca-cert", "list", "--jq", ".[].name"),
	"CONFIGURATION": configurationIDs,
	"DEVICE":        deviceIDs,
	"ENROLLMENT":    enrollmentIDs,
	"FAULT":         listed("hub", "fault", "list", "--jq", ".[].id"),
	"GROUP":         enrollmentGroupIDs,
	"JOB":           jobIDs,
	"METHOD":        methodNames,
	"MODULE":        moduleIDs,
	"REGISTRATION":  registrationIDs,
	"SNAPSHOT":      listed("hub", "snapshot", "list", "--jq", ".[].name"),
	"SHELL":         oneOf("bash", "zsh", "fish", "powershell"),
	"TOPIC":         func(context.Context, place) []string { return topicNames() },
}

func oneOf(names ...string) candidates {
	return func(context.Context, place) []string { return names }
}

// listed are what a command lists.
func listed(args ...string) candidates {
	return func(ctx context.Context, at place) []string { return ask(ctx, at, args...) }
}

func deviceIDs(ctx context.Context, at place) []string {
	return ask(ctx, at, "service", "query", "SELECT TOP "+most+" deviceId FROM devices WHERE STARTSWITH(deviceId, "+condition.Quote(at.typed)+")", "--jq", ".[].deviceId")
}

func moduleIDs(ctx context.Context, at place) []string {
	return ask(ctx, at, "service", "module", "list", "--device", at.device, "--jq", ".[].moduleId")
}

var (
	configurationIDs = listed("service", "configuration", "list", "--jq", ".[].id")
	jobIDs           = listed("service", "job", "list", "--jq", ".[].jobId")

	enrollmentIDs      = listed("service", "enrollment", "list", "--top", most, "--jq", ".[].registrationId")
	enrollmentGroupIDs = listed("service", "enrollment-group", "list", "--jq", ".[].enrollmentGroupId")
	registrationIDs    = listed("service", "registration", "list", "--top", most, "--jq", ".[].registrationId")
)

// consumerGroups are those of the hub on this machine; no other tells.
func consumerGroups(ctx context.Context, at place) []string {
	return ask(ctx, at, "hub", "status", "--jq", "\"$Default\", .consumerGroups[]?")
}

// methodNames are those that jobs called, and the one our own device answers: a
// hub does not know what methods a device has.
func methodNames(ctx context.Context, at place) []string {
	names := ask(ctx, at, "service", "job", "list", "--type", "method", "--jq", ".[].cloudToDeviceMethod.methodName")
	names = append(names, "rebootDevice")
	slices.Sort(names)
	return slices.Compact(names)
}

// ask runs a command of this program and returns the lines it prints. Trouble
// is of no interest to somebody who pressed Tab.
func ask(ctx context.Context, at place, args ...string) []string {
	var out bytes.Buffer
	s := output.Streams{In: strings.NewReader(""), Out: &out, ErrOut: io.Discard}
	app := newApp(s)
	cmd := append(append([]string{"iotdm"}, args...), at.hub...)
	if err := app.RunContext(ctx, command.Arrange(app.Commands, cmd)); err != nil {
		return nil
	}
	return strings.FieldsFunc(out.String(), output.IsLineBreak)
}

// hubWords are the flags among words that say which hub, with their values.
func hubWords(cmd *urfave.Command, words []string) (hub []string) {
	for i, word := range words {
		name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
		if !strings.HasPrefix(word, "-") {
			continue
		}
		f := command.OurFlag(cmd, name)
		if f == nil || !slices.Contains([]string{"connection-string", "data", "ca-file", "hub-name", "dps-name"}, f.Names()[0]) {
			continue
		}
		switch {
		case hasValue:
			hub = append(hub, word)
		case i+1 < len(words):
			hub = append(hub, word, words[i+1])
		}
	}
	return hub
}
