package mqttdevice

import "time"

// A Status is the state of the connection.
type Status int

// The states of a connection.
const (
	Connecting   Status = iota + 1 // an attempt has begun
	Connected                      // connected and subscribed
	Disconnected                   // an attempt failed, or the connection ended
)

// String returns the name of s in lower case.
func (s Status) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	}
	return "unknown"
}

// A State is one event in the life of a connection. Replacing a token in time is no event of its own:
// Connecting and Connected come without a Disconnected before them.
type State struct {
	Status Status
	Reason error         // why it is Disconnected; ErrClosed after Close
	Retry  time.Duration // until the next attempt after Disconnected; zero when there is none
}
