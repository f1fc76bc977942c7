package mqttdevice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/twin"
)

// responseTimeout is how long the hub may take to answer a twin request.
const responseTimeout = time.Minute

// A Twin is a device's view of its twin: the two sections of properties as JSON objects, without
// "$version" and metadata.
type Twin struct {
	Desired         json.RawMessage
	DesiredVersion  int64
	Reported        json.RawMessage
	ReportedVersion int64
}

// A reply is the hub's answer to a twin request.
type reply struct {
	status  int
	version int64 // 0 if the answer has none
	body    []byte
}

// Twin reads the twin. It fails with [*Error] when the hub refuses, and as the package describes it
// when there is no connection.
func (c *Client) Twin(ctx context.Context) (Twin, error) {
	r, err := c.request(ctx, twinGetTopic, nil)
	if err != nil {
		return Twin{}, fmt.Errorf("get twin: %w", err)
	}
	t, err := parseTwin(r.body)
	if err != nil {
		return Twin{}, fmt.Errorf("get twin: the hub's answer: %w", err)
	}
	return t, nil
}

// PatchReported merges patch into the reported properties and returns their new version. The patch
// is anything that encodes as a JSON object, a [json.RawMessage] for instance; null removes a
// property. The hub takes all of it or nothing, and answers a patch that breaks the rules of the
// article "Understand and use device twins in IoT Hub", which allow 32 KiB for all of the section, with
// [*Error]. A patch that is larger than 256 KiB of JSON is [ErrTooLarge]. Otherwise errors are as the
// package describes them; repeating a patch is safe.
func (c *Client) PatchReported(ctx context.Context, patch any) (version int64, err error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return 0, fmt.Errorf("report properties: %w", err)
	}
	if !bytes.HasPrefix(body, []byte("{")) {
		return 0, fmt.Errorf("report properties: a patch is a JSON object, not %T", patch)
	}
	if len(body) > maxMessage {
		return 0, fmt.Errorf("report properties: %w: %d bytes, %d are allowed", ErrTooLarge, len(body), maxMessage)
	}
	r, err := c.request(ctx, reportedTopic, body)
	if err != nil {
		return 0, fmt.Errorf("report properties: %w", err)
	}
	return r.version, nil
}

// request sends a twin request and waits for the answer with the same request id.
func (c *Client) request(ctx context.Context, topic string, body []byte) (reply, error) {
	s, err := c.acquire(ctx)
	if err != nil {
		return reply{}, err
	}
	defer c.release()
	ctx, cancel := context.WithTimeoutCause(ctx, responseTimeout, errNoResponse)
	defer cancel()

	answer := make(chan reply, 1)
	c.mu.Lock()
	c.lastRID++
	rid := strconv.FormatUint(c.lastRID, 16)
	if s.pending == nil {
		s.pending = make(map[string]chan<- reply)
	}
	s.pending[rid] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(s.pending, rid)
		c.mu.Unlock()
	}()

	if err := s.publish(ctx, topic+"?$rid="+rid, 0, body); err != nil {
		return reply{}, err
	}
	select {
	case r := <-answer:
		if r.status < 200 || r.status > 299 {
			return reply{}, hubError(r.status, r.body)
		}
		return r, nil
	case <-s.lost:
		return reply{}, s.lostError()
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	}
}

// receiveReply gives an answer to whoever waits for it. Late and double ones are dropped.
func (s *session) receiveReply(rid string, r reply) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if answer, ok := s.pending[rid]; ok {
		delete(s.pending, rid)
		answer <- r
	}
}

func parseTwin(body []byte) (t Twin, err error) {
	var doc struct{ Desired, Reported json.RawMessage }
	if err := json.Unmarshal(body, &doc); err != nil {
		return Twin{}, err
	}
	if t.Desired, t.DesiredVersion, err = parseSection(doc.Desired); err != nil {
		return Twin{}, fmt.Errorf("desired: %w", err)
	}
	if t.Reported, t.ReportedVersion, err = parseSection(doc.Reported); err != nil {
		return Twin{}, fmt.Errorf("reported: %w", err)
	}
	return t, nil
}

func parseSection(section json.RawMessage) (json.RawMessage, int64, error) {
	var head struct {
		Version *int64 `json:"$version"`
	}
	if err := json.Unmarshal(section, &head); err != nil {
		return nil, 0, err
	}
	if head.Version == nil {
		return nil, 0, errors.New("no $version")
	}
	properties, err := twin.StripReadOnly(section)
	return properties, *head.Version, err
}
