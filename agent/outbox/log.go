package outbox

// Keys of log records.
const (
	logBytes   = "bytes"
	logCount   = "count"   // messages
	logDropped = "dropped" // messages, now
	logError   = "error"
	logFile    = "file"
	logOutbox  = "outbox" // the folder
	logTotal   = "total"  // messages that were dropped since the outbox was made
)
