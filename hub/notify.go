package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// The events that the hub itself makes are described in "Azure IoT Hub
// non-telemetry event schemas". They are appended in the order of what they
// report and are durable a moment later: a hub that is killed in that moment
// loses the event of a change that it has acknowledged, but not the change.

// hubName is the name of the hub among the names of its host, as in
// "contoso" of "contoso.azure-devices.net".
func hubName(hostNames []string) string {
	for _, host := range hostNames {
		if _, err := netip.ParseAddr(host); err != nil && host != "" {
			name, _, _ := strings.Cut(host, ".")
			return name
		}
	}
	return "localhost"
}

// changedBy is a property of events about twins that the service's don't have:
// a policy, principal, job or configuration with its name, or the device or
// module itself.
const changedBy = "iotdm-changed-by"

// fileTime is the time in 100 ns since the year 1601.
func fileTime(t time.Time) int64 {
	const epoch = 116_444_736_000_000_000 // 1970
	return epoch + t.UnixNano()/100
}

// notifies reports whether events of the source are wanted.
func (s *Server) notifies(source EventSource) bool {
	return s.sources == nil || slices.Contains(s.sources, source)
}

// ownEvent returns an event about id: of what somebody did, if by is not empty.
func (s *Server) ownEvent(source EventSource, id ID, schema, operation string, at time.Time, body []byte, by string) Event {
	properties := []Property{
		{Name: "hubName", Value: s.name},
		{Name: "deviceId", Value: id.Device},
		{Name: "operationTimestamp", Value: twin.FormatTime(at)},
		{Name: "opType", Value: operation},
		{Name: "iothub-message-schema", Value: schema},
	}
	if id.Module != "" {
		properties = append(properties, Property{Name: "moduleId", Value: id.Module})
	}
	if by != "" {
		properties = append(properties, Property{Name: changedBy, Value: by})
	}
	return Event{
		Source: source, From: id, Properties: properties, Body: body,
		System: []Property{
			{Name: "content-type", Value: "application/json"},
			{Name: "content-encoding", Value: "utf-8"},
			{Name: "correlation-id", Value: words.NewRequestID().Compact()},
			{Name: "user-id", Value: s.name},
		},
	}
}

// eventNotice is the kind of the notices that carry an event of the hub's own,
// as it is stored.
const eventNotice = "event"

// tellEvent has an event of the hub's own follow the changes of the Tx. Its body
// is a patch if that is not nil.
func (tx *Tx) tellEvent(e Event, patch *reportedPatch) {
	buf := eventBuffers.Get().(*[]byte)
	defer eventBuffers.Put(buf)
	*buf = e.appendTo((*buf)[:0], patch)
	tx.Store.Tell(eventNotice, bytes.Clone(*buf))
}

// hearEvent appends an event that was told: in the order of the changes, since
// those of a device come one after the other. In a log that all nodes share the
// leader does, of those that every node keeps.
func (s *Server) hearEvent(n store.Notice) {
	if !n.Mine {
		return
	}
	if _, shared := s.events.(SharedEventLog); shared {
		s.metrics.event(sourceOf(n.Data))
		return
	}
	s.appendOwn(string(deviceOf(n.Data)), numberedEvent(n))
}

// numberedEvent returns the event of a notice: one about a connection has the
// place of the notice in the log as its number. It is of 256 bits, as the
// service's.
func numberedEvent(n store.Notice) []byte {
	if sourceOf(n.Data) != SourceConnectionState {
		return n.Data
	}
	return fmt.Appendf(slices.Clip(n.Data), `{"sequenceNumber":"%032X%032X"}`, n.Pos, n.Index)
}

// tellLink tells of a connection that was made or has ended, in a Tx that changes
// who has the device.
func (tx *Tx) tellLink(id ID, connected bool) {
	if tx.hub.notifies(SourceConnectionState) {
		tx.tellEvent(tx.hub.linkEvent(id, connected, nil), nil)
	}
}

func (s *Server) appendOwn(device string, data []byte) {
	err := s.events.AppendLate(device, data, s.eventLost)
	if err == nil {
		s.metrics.event(sourceOf(data))
	}
	s.eventLost(err)
}

// eventLost tells the operator of an event that could not be stored.
func (s *Server) eventLost(err error) {
	if err != nil {
		s.log.Warn("an event was lost", words.LogReason, err)
	}
}

// linkChanged appends an event about a connection that was made or has ended.
// The number orders such events even where their appends overtake each other;
// it is 256 bits wide because the service's is.
func (s *Server) linkChanged(id ID, connected bool, number uint64) {
	if !s.notifies(SourceConnectionState) {
		return
	}
	e := s.linkEvent(id, connected, fmt.Appendf(nil, `{"sequenceNumber":"%032X%032X"}`, fileTime(s.started), number))
	s.appendOwn(id.Device, e.appendTo(nil, nil))
}

func (s *Server) linkEvent(id ID, connected bool, body []byte) Event {
	operation := "deviceDisconnected"
	if connected {
		operation = "deviceConnected"
	}
	return s.ownEvent(SourceConnectionState, id, "deviceConnectionStateNotification", operation, s.Now(), body, "")
}

// tellChange tells the events of a change, in the Tx that makes it.
func (tx *Tx) tellChange(c *change) {
	switch c.kind {
	case created:
		tx.tellIdentity(c, "createDeviceIdentity")
	case deleted:
		tx.tellIdentity(c, "deleteDeviceIdentity")
	case written:
		// What a twin shows of configurations, or of a Plug and Play model, is no
		// change of the twin.
		if side := c.write.Side; side != byConnecting && (side != ByConfiguration || c.write.Desired != nil) {
			tx.tellTwin(c)
		}
	}
}

// tellIdentity tells of an identity that is created or deleted with its twin.
func (tx *Tx) tellIdentity(c *change, operation string) {
	if tx.hub.notifies(SourceDeviceLifecycle) {
		body := c.twin.eventBody(c.id)
		tx.tellEvent(tx.hub.ownEvent(SourceDeviceLifecycle, c.id, "deviceLifecycleNotification", operation, tx.now, body, ""), nil)
	}
}

// eventBody prints the twin as events show it.
func (t *Twin) eventBody(id ID) []byte {
	type properties struct {
		Desired  json.RawMessage `json:"desired"`
		Reported json.RawMessage `json:"reported"`
	}
	doc := struct {
		DeviceID   string          `json:"deviceId"`
		ModuleID   string          `json:"moduleId,omitempty"`
		ETag       string          `json:"etag"`
		Version    int64           `json:"version"`
		Tags       json.RawMessage `json:"tags,omitempty"`
		Properties properties      `json:"properties"`
	}{
		DeviceID: id.Device, ModuleID: id.Module, ETag: t.ETag(), Version: t.version,
		Properties: properties{t.Desired.Service(), t.Reported.Service()},
	}
	if string(t.Tags) != "{}" {
		doc.Tags = t.Tags
	}
	return words.MustMarshal(doc)
}

// tellTwin tells of a write of a twin.
func (tx *Tx) tellTwin(c *change) {
	s := tx.hub
	if !s.notifies(SourceTwinChange) {
		return
	}
	t, w := &c.twin, &c.write
	tell := func(operation string, body []byte, by string, patch *reportedPatch) {
		tx.tellEvent(s.ownEvent(SourceTwinChange, c.id, "twinChangeNotification", operation, tx.now, body, by), patch)
	}
	switch {
	case w.Side == ByDevice:
		// Devices patch often and few read of it: the body is made when it is read.
		tell("updateTwin", w.Reported, "", &reportedPatch{twin: t.version, reported: t.Reported.Version, at: tx.now})
		return
	case w.Replaced:
		tell("replaceTwin", t.eventBody(c.id), w.By, nil)
		return
	}
	body := fmt.Appendf(nil, `{"version":%d`, t.version)
	if w.Tags != nil {
		body = fmt.Appendf(body, `,"tags":%s`, w.Tags)
	}
	if w.Desired != nil {
		desired, err := patchWithMetadata(twin.Desired, w.Desired, t.Desired.Version, tx.now)
		if err != nil {
			s.eventLost(err)
			return
		}
		body = fmt.Appendf(body, `,"properties":{"desired":%s}`, desired)
	}
	tell("updateTwin", append(body, '}'), w.By, nil)
}

// A reportedPatch is what makes the body of an event of a patch.
type reportedPatch struct {
	twin, reported int64 // versions that it left
	at             time.Time
}

func (p reportedPatch) body(patch []byte) ([]byte, error) {
	reported, err := patchWithMetadata(twin.Reported, patch, p.reported, p.at)
	return fmt.Appendf(nil, `{"version":%d,"properties":{"reported":%s}}`, p.twin, reported), err
}

// patchWithMetadata returns a patch that was merged with the metadata of what
// it names. Unlike the section, it shows what was removed.
func patchWithMetadata(kind twin.Kind, patch []byte, version int64, at time.Time) (json.RawMessage, error) {
	// Merged into nothing, it has just that metadata.
	changed, err := twin.Section{Version: version - 1}.Patch(kind, patch, at)
	changed.Properties, changed.Version = patch, version // also after {}, by which nothing was cleared
	return changed.Service(), err
}
