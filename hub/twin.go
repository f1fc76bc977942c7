package hub

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/jsontext"
	"github.com/iotdm/iotdm/twin"
)

// A Twin is a device twin as the hub keeps it. What a twin document shows
// besides comes from the identity and the connection.
type Twin struct {
	ModelID           string // the Plug and Play model the device announced
	Tags              json.RawMessage
	Desired, Reported twin.Section
	Configurations    json.RawMessage // those that have it as a target, with their statuses; nil if none has

	etag    uint64 // counts writes by the service
	version int64  // counts every write

	// Whether decodeTwin has read it, and the metadata that it had.
	stored                        bool
	storedDesired, storedReported json.RawMessage
}

// newTwin is the twin an identity is born with. A module's has no time in its
// metadata, as recorded from the service.
func newTwin(id ID, now time.Time) Twin {
	if id.Module != "" {
		now = time.Time{}
	}
	return Twin{
		etag: 1, version: 2, Tags: json.RawMessage("{}"),
		Desired: twin.New(now), Reported: twin.New(now),
	}
}

// twinFormat is the first byte of a stored twin. A query reads a section where
// it lies, without decoding the others.
const twinFormat = 1

func (t *Twin) encode() []byte {
	b := make([]byte, 0, 64+len(t.ModelID)+len(t.Tags)+
		len(t.Desired.Properties)+len(t.Desired.Metadata)+len(t.Reported.Properties)+len(t.Reported.Metadata))
	b = append(b, twinFormat)
	b = binary.AppendUvarint(b, t.etag)
	b = binary.AppendUvarint(b, uint64(t.version))
	b = disk.AppendText(b, t.ModelID)
	b = disk.AppendText(b, t.Tags)
	for _, s := range []twin.Section{t.Desired, t.Reported} {
		b = binary.AppendUvarint(b, uint64(s.Version))
		b = disk.AppendText(b, s.Properties)
		b = disk.AppendText(b, s.Metadata)
	}
	if len(t.Configurations) > 0 {
		b = disk.AppendText(b, t.Configurations)
	}
	return b
}

// decodeTwin reads what encode wrote. The texts are slices of data.
func decodeTwin(data []byte) (Twin, error) {
	r := disk.Read("twin", data, twinFormat)
	t := Twin{etag: r.Number(), version: int64(r.Number()), ModelID: string(r.Text()), Tags: r.Text()}
	for _, s := range []*twin.Section{&t.Desired, &t.Reported} {
		s.Version = int64(r.Number())
		s.Properties = r.Text()
		s.Metadata = r.Text()
	}
	if r.More() {
		t.Configurations = r.Text()
	}
	if err := r.Err(); err != nil {
		return Twin{}, err
	}
	t.stored, t.storedDesired, t.storedReported = true, t.Desired.Metadata, t.Reported.Metadata
	return t, nil
}

// store stores a twin that decodeTwin has read, or a new one, and keeps the
// index of updated.go.
func (t *Twin) store(tx *store.Tx, id ID) {
	tx.Set(id.twinKey(), t.encode())
	before, now := t.place(), updatedMinute(t.Desired.Metadata, t.Reported.Metadata)
	if t.stored && before == now {
		return
	}
	if t.stored {
		tx.Delete(before.key(id))
	}
	tx.Set(now.key(id), nil)
	t.stored, t.storedDesired, t.storedReported = true, t.Desired.Metadata, t.Reported.Metadata
}

// remove removes a twin that decodeTwin has read.
func (t *Twin) remove(tx *store.Tx, id ID) {
	tx.Delete(id.twinKey())
	tx.Delete(t.place().key(id))
}

// ETag returns the twin's etag, without quotes: the base64 form of an eight
// byte counter.
func (t *Twin) ETag() string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, t.etag))
}

// Version returns the twin's version, which counts every write.
func (t *Twin) Version() int64 { return t.version }

// Capabilities is what an identity's document and a device twin say of the
// device itself.
type Capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

// A TwinView is a twin with what its document shows of the identity and the
// connection. MarshalJSON prints the document of the service's REST API.
type TwinView struct {
	Identity Identity
	State    ConnectionState
	record   Twin
}

// ETag returns the twin's etag, without quotes.
func (v TwinView) ETag() string { return v.record.ETag() }

// Contents returns what the twin has besides metadata and versions.
func (v TwinView) Contents() (tags, desired, reported json.RawMessage) {
	return v.record.Tags, v.record.Desired.Properties, v.record.Reported.Properties
}

// MarshalJSON prints the twin as the service does; see "Understand and use
// device twins in IoT Hub". The sections, which are JSON already, are by far the
// most of it and copied as they are.
func (v TwinView) MarshalJSON() ([]byte, error) {
	head, err := jsontext.Marshal(struct {
		DeviceID         string         `json:"deviceId"`
		ModuleID         string         `json:"moduleId,omitempty"`
		ETag             string         `json:"etag"`
		DeviceETag       string         `json:"deviceEtag"`
		Status           Status         `json:"status"`
		StatusReason     *string        `json:"statusReason,omitempty"`
		StatusUpdateTime string         `json:"statusUpdateTime"`
		ConnectionState  string         `json:"connectionState"`
		LastActivityTime string         `json:"lastActivityTime"`
		C2DCount         int            `json:"cloudToDeviceMessageCount"`
		AuthType         AuthType       `json:"authenticationType"`
		X509             X509Thumbprint `json:"x509Thumbprint"`
		ModelID          string         `json:"modelId"`
		Version          int64          `json:"version"`
	}{
		DeviceID: v.Identity.Device, ModuleID: v.Identity.Module,
		ETag: v.record.ETag(), DeviceETag: v.Identity.ETag(),
		Status: v.Identity.Status, StatusReason: v.Identity.StatusReason,
		StatusUpdateTime: twin.FormatTime(v.Identity.StatusUpdated),
		ConnectionState:  v.State.String(), LastActivityTime: twin.FormatTime(v.State.LastActivity),
		C2DCount: v.State.PendingMessages, AuthType: v.Identity.Auth.Type, X509: v.Identity.Auth.X509,
		ModelID: v.record.ModelID, Version: v.record.version,
	})
	if err != nil {
		return nil, err
	}
	tail := struct {
		Capabilities *Capabilities `json:"capabilities,omitempty"`
		DeviceScope  string        `json:"deviceScope,omitempty"`
		ParentScopes []string      `json:"parentScopes,omitempty"`

		Configurations json.RawMessage `json:"configurations,omitempty"`
	}{DeviceScope: v.Identity.DeviceScope, ParentScopes: v.Identity.ParentScopes, Configurations: v.record.Configurations}
	if v.Identity.Module == "" {
		tail.Capabilities = &Capabilities{v.Identity.IoTEdge}
	}
	end, err := jsontext.Marshal(tail)
	if err != nil {
		return nil, err
	}
	desired, reported := v.record.Desired.Service(), v.record.Reported.Service()
	doc := make([]byte, 0, len(head)+len(v.record.Tags)+len(desired)+len(reported)+len(end)+64)
	doc = append(doc, head[:len(head)-1]...)
	if string(v.record.Tags) != "{}" {
		doc = append(append(doc, `,"tags":`...), v.record.Tags...)
	}
	doc = append(append(doc, `,"properties":{"desired":`...), desired...)
	doc = append(append(doc, `,"reported":`...), reported...)
	doc = append(doc, '}')
	if string(end) != "{}" {
		end[0] = ','
		return append(doc, end...), nil
	}
	return append(doc, '}'), nil
}

// Twin returns the twin of a device or module.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound.
func (s *Server) Twin(id ID) (TwinView, error) {
	i, err := s.Identity(id)
	if err != nil {
		return TwinView{}, err
	}
	data, err := s.store.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	if err != nil {
		return TwinView{}, err
	}
	return s.View(i, t), nil
}

// View returns the document of a twin and its identity, with what is known of
// the connection.
func (s *Server) View(i Identity, t Twin) TwinView {
	return TwinView{Identity: i, State: s.ConnectionState(i.ID), record: t}
}

// twinOf turns the result of a Get into a twin.
func twinOf(id ID, data []byte, err error) (Twin, error) {
	if errors.Is(err, store.ErrNotFound) {
		return Twin{}, id.notFound()
	}
	if err != nil {
		return Twin{}, err
	}
	return decodeTwin(data)
}

// DeviceTwin returns the twin as its device or module sees it: desired and
// reported properties with their versions, without metadata and tags.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound; in a cluster ErrServiceUnavailable
// while it is not known what other nodes have written.
func (s *Server) DeviceTwin(id ID) (_ json.RawMessage, err error) {
	if s.journal != nil {
		defer func() { s.noteTwin(id, journal.Got, nil, err) }()
	}
	if err := s.Fresh(s.ctx); err != nil {
		return nil, err
	}
	data, err := s.store.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	if err != nil {
		return nil, err
	}
	desired, reported := t.Desired.Device(), t.Reported.Device()
	doc := make([]byte, 0, len(desired)+len(reported)+32)
	doc = append(doc, `{"desired":`...)
	doc = append(doc, desired...)
	doc = append(doc, `,"reported":`...)
	doc = append(doc, reported...)
	return append(doc, '}'), nil
}
