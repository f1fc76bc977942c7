package rest

import (
	"cmp"
	"encoding/base64"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// The HTTPS API of devices has telemetry and cloud-to-device messages, no twins
// and no direct methods. What belongs to a message travels as headers.

// batchType is the content type of several messages in one request.
const batchType = "application/vnd.microsoft.iothub.json"

// maxBatchBody leaves room for messages of the largest size in base64, and
// their properties.
const maxBatchBody = 2 * hub.MaxMessageSize

// maxBatch is how many messages a batch may have; see "IoT Hub quotas and
// throttling".
const maxBatch = 500

// eventHeaders gives the headers of a device's message the names that system
// properties have in an event.
var eventHeaders = map[string]string{
	"iothub-messageid":         "message-id",
	"iothub-correlationid":     "correlation-id",
	"iothub-userid":            "user-id",
	"iothub-to":                "to",
	"iothub-contenttype":       "content-type",
	"iothub-contentencoding":   "content-encoding",
	"iothub-creation-time-utc": "iothub-creation-time-utc",
	"iothub-interface-id":      "iothub-interface-id",
	"iothub-message-schema":    "iothub-message-schema",
	"iothub-outputname":        "iothub-outputname",
	"dt-subject":               "dt-subject",
}

const applicationPrefix = "iothub-app-"

// applicationProperty returns the name of the application property that a
// header carries. Headers have no case that survives: the name is lower-case.
func applicationProperty(header string) (name string, ok bool) {
	name, ok = strings.CutPrefix(strings.ToLower(header), applicationPrefix)
	return name, ok && name != ""
}

func sortProperties(list []hub.Property) {
	slices.SortFunc(list, func(a, b hub.Property) int { return cmp.Compare(a.Name, b.Name) })
}

// addHeader adds the property that a header carries, if it does. A system
// property without a value is none.
func addHeader(m *hub.Telemetry, header, value string) {
	if name, ok := applicationProperty(header); ok {
		m.Properties = append(m.Properties, hub.Property{Name: name, Value: value})
	} else if name, ok := eventHeaders[strings.ToLower(header)]; ok && value != "" {
		m.System = append(m.System, hub.Property{Name: name, Value: value})
	}
}

// receiveTelemetry takes a device's message, or a batch of them.
func (d *Door) receiveTelemetry(r *request) (reply, error) {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if media == batchType {
		body, err := r.read(maxBatchBody)
		if err != nil {
			return reply{}, err
		}
		batch, err := parseBatch(body)
		if err != nil {
			return reply{}, err
		}
		return reply{}, d.storeTelemetry(r, batch)
	}
	body, err := r.read(hub.MaxMessageSize)
	if err != nil {
		return reply{}, err
	}
	m := hub.Telemetry{Body: body}
	for header, values := range r.Header {
		addHeader(&m, header, values[len(values)-1])
	}
	sortProperties(m.System)
	sortProperties(m.Properties)
	return reply{}, d.storeTelemetry(r, []hub.Telemetry{m})
}

// parseBatch reads a batch: [{"body":"...","base64Encoded":true,"properties":{...}}].
// A body is in base64 unless the message says otherwise.
func parseBatch(body []byte) ([]hub.Telemetry, error) {
	if jsontext.More(body, maxBatch) {
		return nil, hub.ErrMessageTooLarge.With("a batch has at most %d messages", maxBatch)
	}
	var entries []struct {
		Body       string `json:"body"`
		Base64     *bool  `json:"base64Encoded"`
		Properties pairs  `json:"properties"`
	}
	if err := decodeJSON(body, &entries); err != nil {
		return nil, err
	}
	batch := make([]hub.Telemetry, len(entries))
	for i, e := range entries {
		m := &batch[i]
		m.Body = []byte(e.Body)
		if e.Base64 == nil || *e.Base64 {
			var err error
			if m.Body, err = base64.StdEncoding.DecodeString(e.Body); err != nil {
				return nil, hub.ErrArgumentInvalid.With("the body of message %d is not base64", i+1)
			}
		}
		for name, value := range e.Properties {
			// Unlike a header, this name has kept its case.
			if len(name) > len(applicationPrefix) && strings.EqualFold(name[:len(applicationPrefix)], applicationPrefix) {
				m.Properties = append(m.Properties, hub.Property{Name: name[len(applicationPrefix):], Value: value})
			} else {
				addHeader(m, name, value)
			}
		}
		sortProperties(m.System)
		sortProperties(m.Properties)
	}
	return batch, nil
}

// storeTelemetry returns when the messages are durable. Together they are
// bound by the size of one.
func (d *Door) storeTelemetry(r *request, batch []hub.Telemetry) error {
	size := 0
	for _, m := range batch {
		size += m.Size()
	}
	if size > hub.MaxMessageSize {
		return hub.ErrMessageTooLarge.With("messages in one request must be at most %d bytes", hub.MaxMessageSize)
	}
	if len(batch) == 0 {
		return nil
	}
	f, err := d.meetTelemetryFault(r, batch[0])
	if err != nil {
		return err
	}
	stored := make(chan error, len(batch))
	for _, m := range batch {
		if err := d.hub.ReceiveTelemetry(r.peer, m, func(err error) { stored <- err }); err != nil {
			return err
		}
	}
	var failed error
	for range batch {
		if err := <-stored; err != nil {
			failed = err
		}
	}
	return cmp.Or(failed, d.meet(r.Request, f))
}

// meetTelemetryFault does what a fault wants to a request with a message, or several, which counts once. A latency is
// left to its caller, until the messages are stored.
func (d *Door) meetTelemetryFault(r *request, first hub.Telemetry) (late *hub.Fault, err error) {
	if o, asked := d.hub.FaultOperation(first.Properties); asked {
		if refusal := d.hub.OperationRefusal(o); refusal != nil {
			return nil, refusal
		}
	}
	f := d.hub.TelemetryFault(r.peer, first)
	if f == nil || f.Latency > 0 {
		return f, nil
	}
	return nil, d.meet(r.Request, f)
}

// formatMessageTime is the form of times in the headers of a message. No time
// is none.
func formatMessageTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("01/02/2006 03:04:05 PM")
}

// receiveMessage hands the device its next message, or answers 204. There are
// headers for what the sender set only: the Azure CLI prints all that it gets.
func (d *Door) receiveMessage(r *request) (reply, error) {
	var lock time.Duration
	if seconds, err := strconv.Atoi(r.Header.Get("IotHub-MessageLockTimeout")); err == nil {
		lock = time.Duration(min(max(seconds, 1), 300)) * time.Second
	}
	m, ok, err := d.hub.ReceiveMessage(r.id.Device, lock)
	if !ok || err != nil {
		return reply{}, err
	}
	return reply{stream: func(w http.ResponseWriter) {
		h := w.Header()
		for name, value := range map[string]string{
			"ETag": `"` + m.LockToken + `"`, "Content-Type": "application/octet-stream", "Content-Length": strconv.Itoa(len(m.Body)),
			"ContentType": m.ContentType, "ContentEncoding": m.ContentEncoding,
			"iothub-messageid": m.MessageID, "iothub-correlationid": m.CorrelationID, "iothub-userid": m.UserID,
			"iothub-to": hub.MessageTo(r.id.Device), "iothub-ack": string(m.Ack),
			"iothub-expiry": formatMessageTime(m.Expires), "iothub-enqueuedtime": formatMessageTime(m.Enqueued),
			"iothub-deliverycount": strconv.Itoa(m.Deliveries), "iothub-sequencenumber": strconv.FormatUint(m.Sequence, 10),
		} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		for _, p := range m.Properties {
			h[applicationPrefix+p.Name] = []string{p.Value}
		}
		deadlineWriter{w}.Write(m.Body) // a peer that is gone gets it again
	}}, nil
}

// settleMessage completes a message, or rejects it if the query says so.
// The Java SDK encodes the query's question mark.
func (d *Door) settleMessage(r *request) (reply, error) {
	token, query, _ := strings.Cut(r.name, "?")
	if strings.HasPrefix(query, "reject") || r.URL.Query().Has("reject") {
		return reply{}, d.hub.RejectMessage(r.id.Device, token)
	}
	return reply{}, d.hub.CompleteMessage(r.id.Device, token)
}

func (d *Door) abandonMessage(r *request) (reply, error) {
	return reply{}, d.hub.AbandonMessage(r.id.Device, r.name)
}
