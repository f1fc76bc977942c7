package sas

import "log/slog"

// An EventHubConnectionString says where clients of Event Hubs find a hub's built-in endpoint, and
// with which credential they read it:
//
//	Endpoint=sb://h/;SharedAccessKeyName=p;SharedAccessKey=k;EntityPath=e
type EventHubConnectionString struct {
	Host                string // a port after ":" is kept
	SharedAccessKeyName string
	SharedAccessKey     Key
	EntityPath          string // the name of the event hub

	// UseDevelopmentEmulator has clients do without TLS: it is for a hub on their own machine. They
	// dial port 5672 unless Host has one.
	UseDevelopmentEmulator bool
}

// Format returns the connection string in its usual spelling, with its key.
func (c EventHubConnectionString) Format() string { return c.format(string(c.SharedAccessKey)) }

// String returns the connection string with "***" for its key.
func (c EventHubConnectionString) String() string { return c.format(redacted) }

// GoString returns String.
func (c EventHubConnectionString) GoString() string { return c.String() }

// LogValue is String.
func (c EventHubConnectionString) LogValue() slog.Value { return slog.StringValue(c.String()) }

func (c EventHubConnectionString) format(key string) string {
	emulator := ""
	if c.UseDevelopmentEmulator {
		emulator = ";UseDevelopmentEmulator=true"
	}
	return "Endpoint=sb://" + c.Host + "/;SharedAccessKeyName=" + c.SharedAccessKeyName + ";SharedAccessKey=" + key +
		emulator + ";EntityPath=" + c.EntityPath
}
