package agent

// Keys of log records.
const (
	logAs       = "as"       // the device that an agent is assigned to
	logBooted   = "booted"   // when the machine has booted
	logDetail   = "detail"   // what a status or a phase does not say
	logDevice   = "device"   // device id
	logError    = "error"    // an error
	logHub      = "hub"      // to which it is
	logMethod   = "method"   // name of a direct method
	logModule   = "module"   // module id
	logPhase    = "phase"    // of an update
	logProperty = "property" // path of a desired or reported property
	logReason   = "reason"   // why a machine has not rebooted
	logResult   = "result"   // what came of a command: its exit status, and the end of its standard error
	logRetry    = "retry"    // how long until the next attempt
	logStatus   = "status"   // HTTP status of an answer or acknowledgement, or that of a factory reset
	logTook     = "took"     // duration
	logUpdate   = "update"   // version of a package to be installed
	logVersion  = "version"  // of the desired properties
)
