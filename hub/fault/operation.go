package fault

import (
	"math"
	"slices"
	"strconv"
	"time"
)

// An Operation is a fault that a device asks for itself, by properties of a message that it sends. The end-to-end suites of
// the SDKs do so. There is no article about it: names and values are those of the suites
// (Azure/azure-iot-sdk-csharp: e2e/test/helpers/templates/FaultInjection.cs; azure-iot-sdk-java: ErrorInjectionHelper.java;
// azure-iot-sdk-node: e2etests/test; azure-iot-sdk-c: iothubclient_common_e2e.c), and what the hub does for each is what
// they expect.
type Operation struct {
	Type     OperationType
	Reason   string        // which the peer is told where the protocol has room for it
	Delay    time.Duration // from the message to the fault
	Duration time.Duration // of a fault that lasts; 0 is DefaultDuration
}

// An OperationType is what a device asks for.
type OperationType string

// The types. Those that begin with Kill or ShutDown happen once, to what the device has at the time; the others last.
const (
	KillTCP            OperationType = "KillTcp"
	KillConnection     OperationType = "KillAmqpConnection"
	KillSession        OperationType = "KillAmqpSession"
	KillCBSRequest     OperationType = "KillAmqpCBSLinkReq"
	KillCBSResponse    OperationType = "KillAmqpCBSLinkResp"
	KillTelemetry      OperationType = "KillAmqpD2CLink"
	KillMessages       OperationType = "KillAmqpC2DLink"
	KillTwinRequest    OperationType = "KillAmqpTwinLinkReq"
	KillTwinResponse   OperationType = "KillAmqpTwinLinkResp"
	KillMethodRequest  OperationType = "KillAmqpMethodReqLink"
	KillMethodResponse OperationType = "KillAmqpMethodRespLink"
	ShutDownAMQP       OperationType = "ShutDownAmqp"
	ShutDownMQTT       OperationType = "ShutDownMqtt"
	InvokeThrottling   OperationType = "InvokeThrottling"
	InvokeQuota        OperationType = "InvokeMaxMessageQuota"
	InvokeAuthError    OperationType = "InvokeAuthError"
)

// OperationTypes are all types.
var OperationTypes = []OperationType{
	KillTCP, KillConnection, KillSession, KillCBSRequest, KillCBSResponse, KillTelemetry, KillMessages, KillTwinRequest,
	KillTwinResponse, KillMethodRequest, KillMethodResponse, ShutDownAMQP, ShutDownMQTT, InvokeThrottling, InvokeQuota, InvokeAuthError,
}

// The properties of a message that asks for an operation.
const (
	OperationTypeProperty     = "AzIoTHub_FaultOperationType"
	OperationReasonProperty   = "AzIoTHub_FaultOperationCloseReason"
	OperationDelayProperty    = "AzIoTHub_FaultOperationDelayInSecs"
	OperationDurationProperty = "AzIoTHub_FaultOperationDurationInSecs"
)

// DefaultDuration is how long a fault lasts whose message does not say: as long as the suites make it. That the service
// has one is assumed.
const DefaultDuration = 5 * time.Second

// maxOperationTime bounds the delay and the duration.
const maxOperationTime = time.Hour

// OperationOf reads what a message asks for, whose property with a name get returns; false is none, also for a type that
// nobody knows.
func OperationOf(get func(name string) string) (Operation, bool) {
	o := Operation{Type: OperationType(get(OperationTypeProperty))}
	if o.Type == "" || !slices.Contains(OperationTypes, o.Type) {
		return Operation{}, false
	}
	o.Reason = get(OperationReasonProperty)
	o.Delay = secondsOf(get(OperationDelayProperty), 0)
	o.Duration = secondsOf(get(OperationDurationProperty), DefaultDuration)
	return o, true
}

func secondsOf(text string, none time.Duration) time.Duration {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) || n <= 0 {
		return none
	}
	return time.Duration(min(n, maxOperationTime.Seconds()) * float64(time.Second))
}

// Fault returns what lasts of the operation, for the device that asks for it, and false for one that happens once. The
// service has them for the whole hub; here devices that are tested side by side do not disturb each other.
func (o Operation) Fault(device string) (Fault, bool) {
	f := Fault{On: Telemetry, Device: device, For: o.Duration}
	switch o.Type {
	case InvokeThrottling:
		f.Status = 429
	case InvokeQuota:
		f.Status = 403
	case InvokeAuthError:
		f.Status = 401
	default:
		return Fault{}, false
	}
	return f, true
}
