package hubrest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// What callers branch on, with errors.Is.
var (
	// ErrNotFound: no such device, module, configuration or job. For a direct method also: the device is disabled.
	ErrNotFound = errors.New("not found")
	// ErrNotOnline: the device isn't connected, has no handler for direct methods, or went away during the call.
	ErrNotOnline = errors.New("not online")
	// ErrUnauthorized: the credential is wrong or expired, or lacks the right.
	ErrUnauthorized = errors.New("not authorized")
	// ErrTimedOut: the device didn't answer a direct method in time, or the hub didn't answer a request.
	ErrTimedOut = errors.New("timed out")
	// ErrPreconditionFailed: the etag isn't that of the current state; somebody else changed it.
	ErrPreconditionFailed = errors.New("precondition failed")
	// ErrAlreadyExists: what was to be created is there already.
	ErrAlreadyExists = errors.New("already exists")
	// ErrNoTestControls: the hub was not started with --test-controls.
	ErrNoTestControls = errors.New("no test controls")
)

// An Error is an answer of the hub, or of the provisioning service, that is not a success. See the article "Understand and resolve Azure IoT Hub error
// codes".
type Error struct {
	Service    string // that answered, such as "the provisioning service"; empty: the hub
	Status     int    // HTTP status, such as 404
	Code       int    // IoT Hub's six digits, such as 404103; 0 when the answer has none
	Name       string // IoT Hub's name, such as DeviceNotOnline; empty when the answer has none
	Message    string // the hub's own words
	TrackingID string // for the hub's operator to find the request by
	RequestID  string // the same, from the header x-ms-request-id
}

// Error returns the status, the name, the number and the words.
func (e *Error) Error() string {
	s := cmp.Or(e.Service, hubPeer.name) + " answered " + strconv.Itoa(e.Status)
	if e.Name != "" {
		s += " " + e.Name
	} else if text := http.StatusText(e.Status); text != "" {
		s += " " + text
	}
	if e.Code != 0 {
		s += fmt.Sprintf(" (%d)", e.Code)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Is matches the errors of this package that e stands for.
func (e *Error) Is(target error) bool {
	notOnline := e.Status == http.StatusNotFound &&
		(e.Name == "DeviceNotOnline" || e.Name == "DeviceConnectionClosedRemotely" || e.Code == 404103 || e.Code == 404104)
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound && !notOnline
	case ErrNotOnline:
		return notOnline
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized
	case ErrTimedOut:
		return e.Status == http.StatusGatewayTimeout || e.Status == http.StatusRequestTimeout
	case ErrPreconditionFailed:
		return e.Status == http.StatusPreconditionFailed
	case ErrAlreadyExists:
		return e.Status == http.StatusConflict
	case ErrNoTestControls:
		return e.Name == "TestControlsOff"
	}
	return false
}

// envelope is the union of the bodies that errors come in; names match in any case. Registry and twins answer
// {"Message":"ErrorCode:Name;words","ExceptionMessage":"Tracking ID:..."}, direct methods put
// {"errorCode":404103,"message":"words","trackingId":"..."} as text into Message, and newer parts of the service send
// that object itself.
type envelope struct {
	Message          string
	ExceptionMessage string
	ErrorCode        json.RawMessage // a number, or a number or name as text
	TrackingID       string
}

// parseError makes an *Error of any answer.
func (c *requester) parseError(a answer) *Error {
	e := parseError(a)
	if c.peer == hubPeer {
		return e
	}
	e.Service = c.peer.name
	if a.status/100 == 3 {
		e.Message = "a redirect, which it never sends; is this " + c.peer.name + "?"
	}
	return e
}

func parseError(a answer) *Error {
	e := &Error{
		Status:    a.status,
		Name:      a.header.Get("iothub-errorcode"),
		RequestID: a.header.Get("x-ms-request-id"),
	}
	if a.status/100 == 3 {
		e.Message = "a redirect, which IoT Hub never sends; is this the hub?"
		return e
	}
	e.fill(a.body, 3)
	return e
}

// fill reads a body, and the body inside it, up to depth of them.
func (e *Error) fill(body []byte, depth int) {
	var env envelope
	err := json.Unmarshal(body, &env)
	var wrongType *json.UnmarshalTypeError // the members that do fit are set all the same
	if err != nil && !errors.As(err, &wrongType) {
		e.Message = oneLine(string(body))
		return
	}
	code, name := parseCode(env.ErrorCode)
	e.Code, e.Name = cmp.Or(code, e.Code), cmp.Or(e.Name, name)
	switch {
	case env.TrackingID != "":
		e.TrackingID = oneLine(env.TrackingID)
	case strings.HasPrefix(env.ExceptionMessage, "Tracking ID:"):
		e.TrackingID = oneLine(strings.TrimPrefix(env.ExceptionMessage, "Tracking ID:"))
	}
	if strings.HasPrefix(env.Message, "{") && depth > 1 {
		e.fill([]byte(env.Message), depth-1)
		return
	}
	e.Message = env.Message
	if rest, ok := strings.CutPrefix(env.Message, "ErrorCode:"); ok {
		name, text, _ := strings.Cut(rest, ";")
		if e.Name == "" {
			e.Name = oneLine(name)
		}
		e.Message = text
	}
	e.Message = oneLine(e.Message)
}

// parseCode reads an error code: a number, or a number or name as text.
func parseCode(raw json.RawMessage) (code int, name string) {
	s := strings.Trim(string(raw), `"`)
	if n, err := strconv.Atoi(s); err == nil {
		return n, ""
	}
	if s == "null" {
		return 0, ""
	}
	return 0, oneLine(s)
}

// oneLine returns the beginning of s without control characters and runs of blanks: it may be a proxy's HTML page.
func oneLine(s string) string {
	const limit = 500
	if len(s) > 4*limit {
		s = s[:4*limit]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > limit {
		s = string(r[:limit]) + "..."
	}
	return s
}
