package hub

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
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

// notify appends an event about id.
func (s *Server) notify(source EventSource, id ID, schema, operation string, at time.Time, body []byte) {
	s.notifyOf(source, id, schema, operation, at, body, "", nil)
}

// notifyOf is notify for what somebody did, if by is not empty, with a body
// that is a patch if that is not nil.
func (s *Server) notifyOf(source EventSource, id ID, schema, operation string, at time.Time, body []byte, by string, patch *reportedPatch) {
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
	err := s.appendEvent(Event{
		Source: source, From: id, Properties: properties, Body: body,
		System: []Property{
			{Name: "content-type", Value: "application/json"},
			{Name: "content-encoding", Value: "utf-8"},
			{Name: "correlation-id", Value: words.NewRequestID().Compact()},
			{Name: "user-id", Value: s.name},
		},
	}, patch, s.events.AppendLate, s.eventLost)
	if err != nil {
		s.eventLost(err)
	}
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
	operation := "deviceDisconnected"
	if connected {
		operation = "deviceConnected"
	}
	body := fmt.Appendf(nil, `{"sequenceNumber":"%032X%032X"}`, fileTime(s.started), number)
	s.notify(SourceConnectionState, id, "deviceConnectionStateNotification", operation, s.Now(), body)
}

// identityChanged appends an event about an identity that was created or
// deleted with its twin t.
func (s *Server) identityChanged(id ID, operation string, t Twin, at time.Time) {
	if s.notifies(SourceDeviceLifecycle) {
		s.notify(SourceDeviceLifecycle, id, "deviceLifecycleNotification", operation, at, t.eventBody(id))
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

// notifyTwin appends an event about a write of a twin.
func (s *Server) notifyTwin(c *change, at time.Time) {
	if !s.notifies(SourceTwinChange) {
		return
	}
	const schema = "twinChangeNotification"
	t, w := &c.twin, &c.write
	switch {
	case w.Side == ByDevice:
		// Devices patch often and few read of it: the body is made when it is read.
		s.notifyOf(SourceTwinChange, c.id, schema, "updateTwin", at, w.Reported, "",
			&reportedPatch{twin: t.version, reported: t.Reported.Version, at: at})
		return
	case w.Replaced:
		s.notifyOf(SourceTwinChange, c.id, schema, "replaceTwin", at, t.eventBody(c.id), w.By, nil)
		return
	}
	body := fmt.Appendf(nil, `{"version":%d`, t.version)
	if w.Tags != nil {
		body = fmt.Appendf(body, `,"tags":%s`, w.Tags)
	}
	if w.Desired != nil {
		desired, err := patchWithMetadata(twin.Desired, w.Desired, t.Desired.Version, at)
		if err != nil {
			s.eventLost(err)
			return
		}
		body = fmt.Appendf(body, `,"properties":{"desired":%s}`, desired)
	}
	s.notifyOf(SourceTwinChange, c.id, schema, "updateTwin", at, append(body, '}'), w.By, nil)
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
