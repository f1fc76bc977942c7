package console

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hubamqp"
	"github.com/iotdm/iotdm/hubrest"
)

// A messagesPage is the form of a cloud-to-device message, and how many wait.
type messagesPage struct {
	deviceHead
	Form    messageForm
	Problem string
}

// A messageForm is what was typed.
type messageForm struct {
	Body, Properties                      string
	ContentType, MessageID, CorrelationID string
	Ack, Minutes                          string
}

func (c *Console) messages(w http.ResponseWriter, r *http.Request) error {
	return c.renderMessages(w, r, messagesPage{Form: messageForm{Minutes: "60"}}, http.StatusOK)
}

func (c *Console) renderMessages(w http.ResponseWriter, r *http.Request, p messagesPage, status int) (err error) {
	on := targetOf(r)
	if p.deviceHead, err = c.head(r.Context(), on, "messages"); err != nil {
		return err
	}
	c.render(w, r, page{Template: "messages", Title: titleOf(on, "Messages"), Section: "Devices", Status: status, Data: p})
	return nil
}

func (c *Console) sendMessage(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	f := messageForm{
		Body: r.PostFormValue("body"), Properties: r.PostFormValue("properties"), ContentType: strings.TrimSpace(r.PostFormValue("type")),
		MessageID: strings.TrimSpace(r.PostFormValue("message")), CorrelationID: strings.TrimSpace(r.PostFormValue("correlation")),
		Ack: r.PostFormValue("ack"), Minutes: r.PostFormValue("minutes"),
	}
	m, err := f.message(c.now())
	if err == nil {
		err = c.send(r.Context(), on, m)
	}
	if err != nil {
		status := statusOf(err)
		if status == http.StatusBadRequest {
			status = http.StatusUnprocessableEntity
		}
		return c.renderMessages(w, r, messagesPage{Form: f, Problem: c.explain(r.Context(), about(on, err))}, status)
	}
	return c.done(w, r, identityPath(on, "messages"), "The message waits for the device, which gets it when it is connected.")
}

// send puts a message into the queue of a device: over AMQP, as services do, and else over HTTPS.
func (c *Console) send(ctx context.Context, on hubrest.Target, m hubamqp.Message) error {
	if c.opt.Events != nil {
		return c.opt.Events.Send(ctx, hubamqp.Target{DeviceID: on.DeviceID}, m)
	}
	return c.opt.Client.SendMessage(ctx, on.DeviceID, hubrest.Message{
		Body: m.Body, ContentType: m.ContentType, MessageID: m.MessageID, CorrelationID: m.CorrelationID,
		Ack: hubrest.Ack(m.Ack), Expiry: m.Expiry, Properties: m.Properties,
	})
}

// The most of a message, by "Understand cloud-to-device messaging from an IoT hub".
const (
	maxMessage        = 64 << 10
	maxMessageMinutes = 2 * 24 * 60
)

// message reads the form.
func (f messageForm) message(now time.Time) (hubamqp.Message, error) {
	m := hubamqp.Message{Body: []byte(f.Body), ContentType: f.ContentType, MessageID: f.MessageID, CorrelationID: f.CorrelationID}
	if len(m.Body) > maxMessage {
		return m, invalid("a message is at most 64 KiB")
	}
	switch ack := hubamqp.Ack(f.Ack); ack {
	case "", hubamqp.AckNone, hubamqp.AckPositive, hubamqp.AckNegative, hubamqp.AckFull:
		m.Ack = ack
	default:
		return m, invalid("feedback is none, positive, negative or full")
	}
	minutes, err := strconv.Atoi(strings.TrimSpace(f.Minutes))
	if err != nil || minutes < 1 || minutes > maxMessageMinutes {
		return m, invalid("a message waits for 1 to " + strconv.Itoa(maxMessageMinutes) + " minutes")
	}
	m.Expiry = now.Add(time.Duration(minutes) * time.Minute)
	for line := range strings.Lines(f.Properties) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !found || name == "" {
			return m, invalid("the property \"" + cut(line, 100) + "\" is not NAME=VALUE")
		}
		if m.Properties == nil {
			m.Properties = map[string]string{}
		}
		m.Properties[name] = strings.TrimSpace(value)
	}
	return m, nil
}

// purgeMessages throws away what waits for a device, whose id has been typed.
func (c *Console) purgeMessages(w http.ResponseWriter, r *http.Request) error {
	on := targetOf(r)
	if err := confirmed(r, on.DeviceID); err != nil {
		return c.failed(w, r, identityPath(on, "messages"), err)
	}
	n, err := c.opt.Client.PurgeCommands(r.Context(), on.DeviceID)
	if err != nil {
		return c.failed(w, r, identityPath(on, "messages"), about(on, err))
	}
	return c.done(w, r, identityPath(on, "messages"), "Messages thrown away: "+number(n)+".")
}
