package agent

import (
	"runtime"
	"strings"
)

// privatePrefixes are those of variables that a command does not get: credentials of hubs and clouds,
// and what systemd says to the agent alone.
var privatePrefixes = []string{
	"IOTHUB_", "AZURE_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=", "CREDENTIALS_DIRECTORY=",
}

// privateTexts are in values that are credentials, whatever the variable is called.
var privateTexts = []string{"sharedaccesskey=", "sharedaccesssignature"}

// commandEnv is the environment of a command: what the agent has, without secrets, and then own.
func commandEnv(inherited, own []string) []string {
	env := make([]string, 0, len(inherited)+len(own))
	for _, variable := range inherited {
		if !isPrivate(variable) {
			env = append(env, variable)
		}
	}
	return append(env, own...)
}

func isPrivate(variable string) bool {
	name, value, _ := strings.Cut(variable, "=")
	if runtime.GOOS == "windows" {
		name = strings.ToUpper(name)
	}
	for _, prefix := range privatePrefixes {
		if strings.HasPrefix(name+"=", prefix) {
			return true
		}
	}
	value = strings.ToLower(value)
	for _, text := range privateTexts {
		if strings.Contains(value, text) {
			return true
		}
	}
	return false
}
