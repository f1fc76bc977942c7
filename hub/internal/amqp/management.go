package amqp

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/amqp/engine"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
	"github.com/iotdm/iotdm/hub/internal/words"
)

// managementCredit is how many questions a peer may have under way.
const managementCredit = 100

// attachManagement attaches a link to $management: the one on which a reader of
// events asks what the event hub and its partitions are, or the one on which it
// is answered. Who may ask is decided when it does.
func (c *conn) attachManagement(l *engine.Link) error {
	if l.Role == wire.Receiver {
		c.management.attach(l)
		return nil
	}
	l.Inlet = management{c}
	l.Credit = managementCredit
	return nil
}

// management takes the questions of a connection.
type management struct{ conn *conn }

// Receive implements engine.Inlet.
func (m management) Receive(d *engine.Delivery) {
	request, err := wire.DecodeMessage(d.Payload)
	if err != nil {
		d.Reject(refuse(condArgument, "%v", err))
		return
	}
	d.Accept()
	var properties wire.Properties
	if request.Properties != nil {
		properties = *request.Properties
	}
	answer := wire.Message{Properties: &wire.Properties{CorrelationID: properties.MessageID}}
	body, err := m.conn.manage(request.ApplicationProperties)
	var refused *wire.Error
	switch {
	case err == nil:
		answer.Value = body
		answer.ApplicationProperties = wire.Map{{Key: "status-code", Value: int32(200)}, {Key: "status-description", Value: "OK"}}
	default:
		if !errors.As(err, &refused) {
			refused = m.conn.refusalOf(err)
		}
		answer.ApplicationProperties = wire.Map{
			{Key: "status-code", Value: managementStatus(refused.Condition)},
			{Key: "status-description", Value: refused.Description},
			{Key: "errorCondition", Value: refused.Condition},
		}
	}
	answer.HasValue = true
	m.conn.management.send(d.Link, properties.ReplyTo, wire.AppendMessage(nil, &answer))
}

// Detached implements engine.Inlet.
func (management) Detached() {}

func managementStatus(condition wire.Symbol) int32 {
	switch condition {
	case condUnauthorized:
		return 401
	case condNotFound, condOutOfRange:
		return 404
	case condArgument:
		return 400
	case condInternal:
		return 500
	}
	return 503
}

// manage answers a question with what its application properties ask for.
func (c *conn) manage(question wire.Map) (wire.Map, error) {
	text := func(name string) string {
		s, _ := question.Get(name).(string)
		return s
	}
	name := text("name")
	shown := c.show(text("security_token"))
	if _, err := c.findReader(name, "/"+name+"/$management"); err != nil { // for which clients sign
		return nil, cmp.Or(shown, err)
	}
	if !strings.EqualFold(name, EventHubName) {
		return nil, noEventHub(name)
	}
	if op := text("operation"); !strings.EqualFold(op, "READ") {
		return nil, refuse(condArgument, "$management does not know the operation %q", words.Clip(op))
	}
	switch kind := text("type"); kind {
	case "com.microsoft:eventhub":
		return c.describeEventHub(), nil
	case "com.microsoft:partition":
		return c.describePartition(text("partition"))
	default:
		return nil, refuse(condArgument, "$management does not know the type %q", words.Clip(kind))
	}
}

// show takes the token of a question. All clients send one, though most have put
// the like of it before; Java's have not. It is for the rules to say what it is
// good for, so that one that is good for nothing does no harm.
func (c *conn) show(token string) error {
	if token == "" {
		return nil
	}
	if !strings.HasPrefix(token, "SharedAccessSignature ") {
		token = "Bearer " + token // of Entra ID
	}
	cl, err := c.newClaim(token)
	if err == nil {
		err = c.claim(cl)
	}
	if errors.Is(err, errUnknownResource) {
		err = hub.ErrUnauthorizedAccess.With("%v", err)
	}
	return err
}

func noEventHub(name string) *wire.Error {
	return noEntity(condNotFound, "there is no event hub %q; this hub's is %s", words.Clip(name), EventHubName)
}

func (c *conn) describeEventHub() wire.Map {
	h := c.door.hub
	ids := make([]string, h.EventPartitions())
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	return wire.Map{
		{Key: "name", Value: EventHubName},
		{Key: "type", Value: "com.microsoft:eventhub"},
		{Key: "created_at", Value: h.Started()}, // when it was made is not known
		{Key: "partition_count", Value: int32(len(ids))},
		{Key: "partition_ids", Value: ids},
		{Key: "georeplication_factor", Value: int32(1)},
	}
}

func (c *conn) describePartition(id string) (wire.Map, error) {
	n, err := parsePartition(id)
	if err != nil {
		return nil, err
	}
	p, err := c.door.hub.EventPartition(c.door.running.Context(), n, c.door.sources())
	if err != nil {
		return nil, c.readerRefusal(err)
	}
	return wire.Map{
		{Key: "name", Value: EventHubName},
		{Key: "type", Value: "com.microsoft:partition"},
		{Key: "partition", Value: id},
		{Key: "begin_sequence_number", Value: p.First},
		{Key: "last_enqueued_sequence_number", Value: p.Last},
		{Key: "last_enqueued_offset", Value: strconv.FormatInt(p.LastOffset, 10)},
		{Key: "last_enqueued_time_utc", Value: lastTime(p)},
		{Key: "is_partition_empty", Value: p.Empty},
	}, nil
}

// lastTime is when the newest event of a partition came. Without one it is the
// start of Unix time, which all clients can show.
func lastTime(p hub.EventPartition) time.Time {
	if p.LastTime.IsZero() {
		return time.Unix(0, 0)
	}
	return p.LastTime
}
