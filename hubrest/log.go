package hubrest

// Keys of log lines.
const (
	keyMethod    = "method"
	keyPath      = "path"
	keyIfMatch   = "ifMatch"
	keyBody      = "body"
	keyStatus    = "status"
	keyRequestID = "requestId"
	keyTook      = "took"
	keyAttempt   = "attempt"
	keyWait      = "wait"
	keyErr       = "err"
)
