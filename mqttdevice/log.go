package mqttdevice

// Keys of log records.
const (
	logAddr         = "addr"
	logAttempts     = "attempts"
	logAway         = "away"
	logDevice       = "device"
	logError        = "error"
	logMessage      = "message"
	logMethod       = "method"
	logModule       = "module"
	logRetry        = "retry"
	logRegistration = "registration"
	logRID          = "rid"
	logSize         = "size"
	logStack        = "stack"
	logStatus       = "status"
	logTransport    = "transport"
	logTopic        = "topic"
	logVersion      = "version"
)
