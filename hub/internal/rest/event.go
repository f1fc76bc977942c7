package rest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// maxLastEvents bounds what "last" asks for: their places are kept in memory.
const maxLastEvents = 100_000

// events writes events as lines of JSON, each as "az iot hub
// monitor-events" shows it. IoT Hub has no such call: its events are read over
// AMQP. The parameters are those of an EventQuery:
//
//	device=ID
//	source=NAME      one of the message sources, repeatable
//	from=OFFSET, from=latest, or from=TIME in RFC 3339
//	last=N           only the last so many of those that there are
//	follow=true      wait for more
//
// Where events are missing because the disk has damaged them, there is a line
// {"damaged":{"offset":"OFFSET","bytes":N}}.
func (d *Door) events(r *request) (reply, error) {
	q, err := parseEventQuery(r.Request)
	if err != nil {
		return reply{}, err
	}
	return reply{stream: func(w http.ResponseWriter) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(d.following, cancel)()
		w.Header()["Content-Type"] = []string{"application/x-ndjson; charset=utf-8"}
		w.WriteHeader(http.StatusOK)
		lines := bufio.NewWriterSize(deadlineWriter{w}, 32<<10)
		flush := func() {
			lines.Flush()
			http.NewResponseController(w).Flush()
		}
		q.AtEnd = flush
		// The peer sees why a stream ends early by its missing end.
		err := d.writeEvents(ctx, q, lines)
		flush()
		if err != nil && ctx.Err() == nil {
			d.log.Info("reading events", words.LogReason, err)
			panic(http.ErrAbortHandler)
		}
	}}, nil
}

func (d *Door) writeEvents(ctx context.Context, q hub.EventQuery, lines *bufio.Writer) error {
	q.Damaged = func(damage hub.EventDamage) error {
		_, err := fmt.Fprintf(lines, "{\"damaged\":{\"offset\":\"%d\",\"bytes\":%d}}\n", damage.Offset, damage.Bytes)
		return err
	}
	for e, err := range d.hub.Events(ctx, q) {
		if err != nil {
			return err
		}
		text, err := printEvent(e)
		if err != nil {
			return err
		}
		if _, err := lines.Write(append(text, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// A deadlineWriter gives the peer some time for each write.
type deadlineWriter struct{ http.ResponseWriter }

func (w deadlineWriter) Write(p []byte) (int, error) {
	http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(writeTimeout))
	return w.ResponseWriter.Write(p)
}

func parseEventQuery(r *http.Request) (hub.EventQuery, error) {
	values := r.URL.Query()
	q := hub.EventQuery{Device: values.Get("device"), Follow: values.Get("follow") == "true"}
	for _, source := range values["source"] {
		q.Sources = append(q.Sources, hub.EventSource(source))
	}
	if last := values.Get("last"); last != "" {
		n, err := strconv.Atoi(last)
		if err != nil || n < 1 || n > maxLastEvents {
			return hub.EventQuery{}, hub.ErrArgumentInvalid.With("last must be a number from 1 to %d", maxLastEvents)
		}
		q.Last = n
	}
	from := values.Get("from")
	if from == "" {
		return q, nil
	}
	if from == "latest" {
		q.Latest = true
		return q, nil
	}
	var err error
	if q.Offset, err = strconv.ParseInt(from, 10, 64); err == nil {
		return q, nil
	}
	if q.Since, err = time.Parse(time.RFC3339Nano, from); err != nil {
		return hub.EventQuery{}, hub.ErrArgumentInvalid.With("from must be an offset, a time in RFC 3339, or latest")
	}
	return q, nil
}

// printEvent prints an event as "az iot hub monitor-events" does. A payload
// is JSON if its content type says so, text if it is, and otherwise in base64
// with "payloadEncoding" beside it.
func printEvent(e hub.Event) ([]byte, error) {
	type properties struct {
		System      map[string]string  `json:"system"`
		Application map[string]*string `json:"application"`
	}
	var doc struct {
		Event struct {
			Origin      string         `json:"origin"`
			Module      string         `json:"module"`
			Interface   string         `json:"interface"`
			Component   string         `json:"component"`
			Properties  properties     `json:"properties"`
			Annotations map[string]any `json:"annotations"`
			Payload     any            `json:"payload"`
			Encoding    string         `json:"payloadEncoding,omitempty"`
		} `json:"event"`
	}
	d := &doc.Event
	d.Origin, d.Module, d.Interface = e.From.Device, e.From.Module, e.Model
	enqueued := e.Enqueued.UnixMilli()
	d.Annotations = map[string]any{
		"iothub-connection-device-id": e.From.Device,
		"iothub-enqueuedtime":         enqueued,
		"iothub-message-source":       e.Source,
		"x-opt-enqueued-time":         enqueued,
		"x-opt-offset":                strconv.FormatInt(e.Offset, 10),
		"x-opt-sequence-number":       e.Sequence,
		"x-opt-partition-id":          strconv.Itoa(e.Partition),
	}
	for name, value := range map[string]string{
		"iothub-connection-module-id":          e.From.Module,
		"iothub-connection-auth-generation-id": e.Generation,
		"iothub-connection-auth-method":        e.AuthMethod,
		"dt-dataschema":                        e.Model,
	} {
		if value != "" {
			d.Annotations[name] = value
		}
	}
	d.Properties.System = map[string]string{}
	contentType := ""
	for _, p := range e.System {
		switch p.Name {
		case "message-id", "correlation-id", "user-id", "to", "content-type", "content-encoding":
			d.Properties.System[strings.ReplaceAll(p.Name, "-", "_")] = p.Value
			if p.Name == "content-type" {
				contentType = p.Value
			}
			continue
		case "dt-subject":
			d.Component = p.Value
		}
		d.Annotations[p.Name] = p.Value
	}
	d.Properties.Application = make(map[string]*string, len(e.Properties))
	for i, p := range e.Properties {
		d.Properties.Application[p.Name] = nil
		if !p.Null {
			d.Properties.Application[p.Name] = &e.Properties[i].Value
		}
	}
	media, _, _ := mime.ParseMediaType(contentType)
	switch {
	case media == "application/json" && json.Valid(e.Body):
		d.Payload = json.RawMessage(e.Body)
	case utf8.Valid(e.Body):
		d.Payload = string(e.Body)
	default:
		d.Payload, d.Encoding = base64.StdEncoding.EncodeToString(e.Body), "base64"
	}
	return jsontext.Marshal(doc)
}
