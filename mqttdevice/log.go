package mqttdevice

// Keys of log records.
const (
	logAddr    = "addr"
	logDevice  = "device"
	logError   = "error"
	logMessage = "message"
	logMethod  = "method"
	logModule  = "module"
	logRetry   = "retry"
	logRID     = "rid"
	logSize    = "size"
	logStack   = "stack"
	logStatus  = "status"
	logTopic   = "topic"
	logVersion = "version"
)
