package mqttdevice

import "time"

// A Status is the state of the connection.
type Status int

// The states of a connection.
const (
	Connecting   Status = iota + 1 // an attempt has begun
	Connected                      // connected and subscribed
	Disconnected                   // an attempt failed, or the connection ended
	Provisioning                   // an attempt has begun, and finds out first where to connect; see Options.Provision
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
	case Provisioning:
		return "provisioning"
	}
	return "unknown"
}

// A State is one event in the life of a connection. Replacing a token in time is no loss: Connecting
// and Connected come without a Disconnected before them, and Since stays as it was.
type State struct {
	Status Status
	// Since is when the device became connected, or when it ceased to be; before the first
	// connection, when Connect was called.
	Since time.Time
	// Attempts is how many attempts there were since the device ceased to be connected, the one that
	// has begun or succeeded included; zero right after a loss.
	Attempts int
	// Away is how long the device was not connected before it became Connected, Connect's own time
	// included; zero for other states and after a token was replaced.
	Away time.Duration
	// Reason is why it is Disconnected: one of the package's errors, ErrClosed after Close, or that of
	// dialling. It prints as one line; programs ask errors.Is. When Connected, it is why Auto took
	// WebSocket, and nil otherwise.
	Reason error
	// Retry is the time until the next attempt after Disconnected; zero when there is none.
	Retry time.Duration
	// Transport and Addr are how a device that is Connected reaches its hub.
	Transport Transport
	Addr      string
	// Hub and Device are the HostName and the DeviceID of the connection string, or what Provision has put
	// in their place. Hub is empty for a device that is not assigned yet.
	Hub, Device string
}
