package hubrest

// Keys of log lines.
const (
	keyMethod    = "method"
	keyPath      = "path"
	keyStatus    = "status"
	keyRequestID = "requestId"
	keyTook      = "took"
	keyAttempt   = "attempt"
	keyWait      = "wait"
	keyErr       = "err"
)
