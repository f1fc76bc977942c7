package mqttdevice

// Keys of log records.
const (
	logAddr         = "addr"
	logAs           = "as"
	logAttempts     = "attempts"
	logAway         = "away"
	logDevice       = "device"
	logError        = "error"
	logHub          = "hub"
	logMessage      = "message"
	logMethod       = "method"
	logModule       = "module"
	logRID          = "rid"
	logRegistration = "registration"
	logRetry        = "retry"
	logSize         = "size"
	logStack        = "stack"
	logStatus       = "status"
	logTopic        = "topic"
	logTransport    = "transport"
	logVersion      = "version"
)
