package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A telemetryWriter sends numbered messages. What the hub has of it is found
// among all events.
type telemetryWriter struct {
	id    string
	acked int // all up to this
	sent  int
	next  int // the number that comes next in the events
}

func (w *telemetryWriter) setup(h *crashHub) error {
	w.next = 1
	return createDevice(h, w.id, "")
}

func (w *telemetryWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	d, err := h.connect(w.id)
	if err != nil {
		return
	}
	defer d.Close()
	w.sent = w.acked // what was not acknowledged is sent again
	for window := 1 + r.IntN(20); ctx.Err() == nil; {
		for w.sent < w.acked+window {
			w.sent++
			topic := "devices/" + w.id + "/messages/events/"
			if d.send(publish(uint16(1+w.sent%60_000), 1, topic, fmt.Sprint(w.sent))) != nil {
				break
			}
		}
		p, err := d.read()
		if err != nil {
			return
		}
		ack, ok := p.(*packets.PubackPacket)
		if want := uint16(1 + (w.acked+1)%60_000); !ok || ack.MessageID != want {
			h.t.Errorf("%s: got %v, want PUBACK %d", w.id, p, want)
			return
		}
		w.acked++
	}
}

// saw takes a message that is among the events.
func (w *telemetryWriter) saw(n int) error {
	if n > w.next {
		return fmt.Errorf("%s: message %d is followed by %d", w.id, w.next-1, n)
	}
	w.next = max(w.next, n+1)
	return nil
}

func (w *telemetryWriter) check(*crashHub) error {
	if w.next <= w.acked {
		return fmt.Errorf("%s: messages up to %d were acknowledged, and those up to %d are there", w.id, w.acked, w.next-1)
	}
	return nil
}

// messageLock is how long a receiver has a message.
const messageLock = 5 * time.Second

// A messageState is a cloud-to-device message as its sender and its receiver
// know it.
type messageState uint8

const (
	messageMaybeSent messageState = iota
	messageSent
	messageMaybeSettled
	messageSettled
)

// A messageWriter sends cloud-to-device messages, and receives and settles them
// as the device.
type messageWriter struct {
	id       string
	n        int
	messages map[int]messageState
	abandons map[int]int
}

func (w *messageWriter) setup(h *crashHub) error {
	w.messages, w.abandons = make(map[int]messageState), make(map[int]int)
	return createDevice(h, w.id, "")
}

func (w *messageWriter) path() string { return "/devices/" + w.id + "/messages/deviceBound" }

func (w *messageWriter) write(ctx context.Context, h *crashHub, r *rand.Rand) {
	for ctx.Err() == nil {
		if waiting := w.waiting(); waiting < 40 && (waiting == 0 || r.IntN(2) == 0) {
			w.n++
			a, err := h.do("POST", w.path(), fmt.Sprint(w.n))
			switch {
			case err == nil && a.ok():
				w.messages[w.n] = messageSent
			case err == nil && a.refused():
				h.t.Errorf("send a message to %s: %v", w.id, a)
				return
			default:
				w.messages[w.n] = messageMaybeSent
				return
			}
			continue
		}
		if more, err := w.receive(h, r.IntN(4) == 0); err != nil {
			h.t.Error(err)
			return
		} else if !more {
			return
		}
	}
}

// waiting counts the messages that may wait.
func (w *messageWriter) waiting() (n int) {
	for _, s := range w.messages {
		if s != messageSettled {
			n++
		}
	}
	return n
}

// receive receives a message and completes it, or abandons it. There is no more
// if the queue is empty, or the hub does not say what became of it. An error is
// one of the hub's.
func (w *messageWriter) receive(h *crashHub, abandon bool) (more bool, err error) {
	// In a cluster the lock outlives what the round does to others.
	a, err := h.do("GET", w.path(), "", "IotHub-MessageLockTimeout", strconv.Itoa(int(messageLock/time.Second)))
	if err != nil || a.status >= 500 {
		return false, nil
	}
	if a.status == 204 {
		return false, nil
	}
	n, err := strconv.Atoi(string(a.body))
	if err != nil || !a.ok() {
		return false, fmt.Errorf("receive a message of %s: %v", w.id, a)
	}
	state, known := w.messages[n]
	switch {
	case !known:
		return false, fmt.Errorf("%s receives %d, which nobody sent", w.id, n)
	case state == messageSettled:
		return false, fmt.Errorf("%s receives %d again, which it has settled", w.id, n)
	case state == messageMaybeSent:
		w.messages[n] = messageSent
	}
	lock := strings.Trim(a.header.Get("ETag"), `"`)
	if abandon && w.abandons[n] < 5 { // ten are too many
		w.abandons[n]++
		a, err := h.do("POST", w.path()+"/"+lock+"/abandon", "")
		return err == nil && a.ok(), nil
	}
	a, err = h.do("DELETE", w.path()+"/"+lock, "")
	switch {
	case err == nil && a.ok():
		delete(w.abandons, n)
		w.messages[n] = messageSettled
		return true, nil
	case err == nil && a.status == 412 && h.cluster != nil:
		return false, nil // who knew of the lock is gone: it waits again
	case err == nil && a.refused():
		return false, fmt.Errorf("%s completes %d: %v", w.id, n, a)
	}
	w.messages[n] = messageMaybeSettled
	return false, nil
}

// check receives and settles everything: after a start nothing is locked, and in
// a cluster not for long.
func (w *messageWriter) check(h *crashHub) error {
	if h.cluster != nil {
		pause(context.Background(), messageLock+2*time.Second)
	}
	for {
		more, err := w.receive(h, false)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	for n, s := range w.messages {
		if s == messageSent {
			return fmt.Errorf("message %d to %s was acknowledged, not settled, and is not there", n, w.id)
		}
		// What nobody knew is known now: it is not there. Settled ones are kept
		// for a while, to be recognised.
		w.messages[n] = messageSettled
		if n < w.n-500 {
			delete(w.messages, n)
		}
	}
	return nil
}

// An eventChecker reads the events as they grow, and sees that none changes its
// number, that none goes, and what the telemetry writers want to know. Numbers
// that were given to events which were not completely written when the hub was
// killed are never given to others: so each start may leave a gap.
type eventChecker struct {
	telemetry map[string]*telemetryWriter

	from    int64                // offset to read on from: where the round before the last began
	begun   int64                // where the last round began
	records map[int64]eventPlace // those from from on, by offset
	next    map[string]int64     // numbers that come next, by partition
	starts  int                  // of the hub, at the last check
	gaps    bool                 // there may be any number of gaps: a disk that is full cuts batches too
	damaged bool                 // what was damaged may be missing
	missing int                  // events that were missing at the last check
}

// An eventPlace says which event stands at an offset.
type eventPlace struct {
	partition string
	number    int64
	content   string
}

func (c *eventChecker) check(h *crashHub) error {
	a, err := h.do("GET", fmt.Sprintf("/iotdm/events?from=%d", c.from), "")
	if err != nil {
		return err
	}
	if !a.ok() {
		return fmt.Errorf("read events: %v", a)
	}
	seen := make(map[int64]eventPlace)
	last, gaps := make(map[string]int64), make(map[string]int)
	end := c.begun
	for line := range strings.Lines(string(a.body)) {
		var e struct {
			Damaged json.RawMessage // a place where something is missing
			Event   struct {
				Origin      string
				Payload     json.RawMessage
				Annotations struct {
					Offset    string `json:"x-opt-offset"`
					Partition string `json:"x-opt-partition-id"`
					Number    int64  `json:"x-opt-sequence-number"`
					Source    string `json:"iothub-message-source"`
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return fmt.Errorf("the events end with %.200q: %w", line, err)
		}
		if e.Damaged != nil {
			continue
		}
		at := e.Event.Annotations
		offset, err := strconv.ParseInt(at.Offset, 10, 64)
		if err != nil {
			return err
		}
		p := eventPlace{at.Partition, at.Number, e.Event.Origin + " " + string(e.Event.Payload)}
		before, known := c.records[offset]
		switch {
		case known && before != p:
			return fmt.Errorf("the event at offset %d was %+v and is %+v", offset, before, p)
		case !known && c.records != nil && offset < end:
			return fmt.Errorf("there is a new event before others, at offset %d: %+v", offset, p)
		case !known && at.Number < c.next[at.Partition]:
			return fmt.Errorf("number %d of partition %s is given out again, at offset %d: %+v", at.Number, at.Partition, offset, p)
		}
		if n, ok := last[at.Partition]; ok && at.Number <= n {
			return fmt.Errorf("in partition %s, number %d is followed by %d", at.Partition, n, at.Number)
		}
		if !known && at.Number != c.next[at.Partition] {
			if gaps[at.Partition]++; !c.gaps && !c.damaged && gaps[at.Partition] > h.starts-c.starts {
				return fmt.Errorf("in partition %s, number %d is missing", at.Partition, c.next[at.Partition])
			}
		}
		last[at.Partition] = at.Number
		seen[offset] = p
		c.next[at.Partition] = max(c.next[at.Partition], at.Number+1)
		if w := c.telemetry[e.Event.Origin]; w != nil && at.Source == "Telemetry" && !known {
			n, err := strconv.Atoi(strings.Trim(string(e.Event.Payload), `"`))
			if err != nil {
				return fmt.Errorf("telemetry is %s", line)
			}
			if err := w.saw(n); err != nil {
				return err
			}
		}
	}
	c.missing = 0
	for offset, p := range c.records {
		if _, ok := seen[offset]; !ok {
			if c.missing++; !c.damaged {
				return fmt.Errorf("the event at offset %d, %+v, is gone", offset, p)
			}
		}
	}
	c.starts = h.starts
	c.turn(seen)
	return nil
}

// turn goes on to the next round.
func (c *eventChecker) turn(seen map[int64]eventPlace) {
	if c.damaged { // all are read again, as often as it is looked
		c.records = seen
		return
	}
	c.from = c.begun
	for offset := range seen {
		c.begun = max(c.begun, offset+1)
	}
	for offset := range seen {
		if offset < c.from {
			delete(seen, offset)
		}
	}
	c.records = seen
}
