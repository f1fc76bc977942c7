package sas

import (
	"errors"
	"fmt"
	"strings"
)

// IsEventHubConnectionString reports whether s looks like the connection string of an event hub, and
// not like that of an IoT hub: it has an Endpoint.
func IsEventHubConnectionString(s string) bool {
	for part := range strings.SplitSeq(s, ";") {
		if name, _, ok := strings.Cut(part, "="); ok && strings.EqualFold(name, "Endpoint") {
			return true
		}
	}
	return false
}

// ParseEventHubConnectionString parses s as the portal shows it for the built-in endpoint. Names may
// have any case, unknown ones are ignored. The key may be any text, as an emulator's is. The error is
// one line that says which member is missing or broken; it never shows a value.
func ParseEventHubConnectionString(s string) (EventHubConnectionString, error) {
	c, err := parseEventHubConnectionString(s)
	if err != nil {
		return EventHubConnectionString{}, fmt.Errorf("connection string: %w", err)
	}
	return c, nil
}

func parseEventHubConnectionString(s string) (EventHubConnectionString, error) {
	var c EventHubConnectionString
	members := map[string]string{}
	for part := range strings.SplitSeq(strings.TrimSuffix(s, ";"), ";") {
		name, value, ok := strings.Cut(part, "=")
		if name = strings.ToLower(name); !ok || name == "" {
			return c, errors.New("a part of it is not Name=Value") // it may be a piece of a key
		}
		if _, twice := members[name]; twice {
			return c, errors.New("two parts of it have the same name")
		}
		members[name] = value
	}
	scheme, host, _ := strings.Cut(members["endpoint"], "://")
	c.Host = strings.TrimSuffix(host, "/")
	c.EntityPath = members["entitypath"]
	c.SharedAccessKeyName = members["sharedaccesskeyname"]
	c.SharedAccessKey = Key(members["sharedaccesskey"])
	c.UseDevelopmentEmulator = strings.EqualFold(members["usedevelopmentemulator"], "true")
	switch {
	case !strings.EqualFold(scheme, "sb") || c.Host == "" || checkHost(c.Host) != nil:
		return c, errors.New("its Endpoint is not sb://, a host name and a slash")
	case c.SharedAccessKeyName == "":
		return c, errors.New("SharedAccessKeyName is missing")
	case c.SharedAccessKey == "":
		return c, errors.New("SharedAccessKey is missing")
	case c.EntityPath == "" || strings.ContainsAny(c.EntityPath, "/?#"):
		return c, errors.New("EntityPath, the name of the event hub, is missing or broken")
	}
	return c, nil
}
