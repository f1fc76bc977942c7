package console

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/eventdoc"
)

const sourceTelemetry = string(hubrest.SourceTelemetry)

// newLive returns the subscription of the console.
func (c *Console) newLive() *live {
	return &live{
		read: c.newReader(), explain: func(err error) string { return c.explain(c.ctx, err) },
		run: c.wg.Go, epoch: secret()[:8], watchers: map[*watcher]bool{},
	}
}

// newReader returns what reads the events that come. A hub of iotdm tells them by REST: all of them, where clients of Event
// Hubs get telemetry; all other hubs over AMQP.
func (c *Console) newReader() func(context.Context, func(), func(liveEvent)) error {
	var since time.Time
	seen := map[string]place{}
	return func(ctx context.Context, begun func(), fn func(liveEvent)) error {
		c.may(ctx) // so that something is known of the hub
		if !c.opt.Client.OwnHub() {
			if c.opt.Events == nil {
				return errNoEvents
			}
			q := hubamqp.EventQuery{Latest: true, Follow: true, Begun: func([]string) { begun() }}
			return c.opt.Events.Events(ctx, q, func(e hubamqp.Event) error {
				doc, err := json.Marshal(eventdoc.New(e, ""))
				if err != nil {
					return err
				}
				live, err := parseEvent(doc)
				fn(live)
				return err
			})
		}
		q := hubrest.EventQuery{Latest: since.IsZero(), Since: since, Follow: true}
		return c.opt.Client.Events(ctx, q, func() {
			if since.IsZero() {
				since = c.now()
			}
			begun()
		}, func(text json.RawMessage) error {
			e, err := parseEvent(append(json.RawMessage(nil), text...))
			if err != nil {
				return err
			}
			if p := seen[e.partition]; e.sequence <= p.sequence && !e.Time.After(p.time) { // it came before the connection broke
				return nil
			}
			seen[e.partition] = place{e.sequence, e.Time}
			since = e.Time
			fn(e)
			return nil
		})
	}
}

// A place is how far a partition has been read.
type place struct {
	sequence int64
	time     time.Time
}

// parseEvent reads an event as "az iot hub monitor-events" prints it.
func parseEvent(text json.RawMessage) (liveEvent, error) {
	var doc struct {
		Event struct {
			Origin     string          `json:"origin"`
			Module     string          `json:"module"`
			Payload    json.RawMessage `json:"payload"`
			Properties struct {
				Application struct {
					Operation string `json:"opType"`
				} `json:"application"`
			} `json:"properties"`
			Annotations struct {
				Source    string `json:"iothub-message-source"`
				Enqueued  int64  `json:"x-opt-enqueued-time"` // ms
				Sequence  int64  `json:"x-opt-sequence-number"`
				Partition string `json:"x-opt-partition-id"`
			} `json:"annotations"`
		} `json:"event"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		return liveEvent{}, fmt.Errorf("an event of the hub is not as documented: %w", err)
	}
	e := doc.Event
	return liveEvent{
		Device: e.Origin, Module: e.Module, Source: e.Annotations.Source, Time: time.UnixMilli(e.Annotations.Enqueued).UTC(),
		Operation: e.Properties.Application.Operation, Payload: e.Payload, Doc: text, partition: e.Annotations.Partition, sequence: e.Annotations.Sequence,
	}, nil
}
