package hub

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// A twinRecord is a twin as stored. What a twin document shows besides comes
// from the identity and the connection.
type twinRecord struct {
	ETag              uint64 // counts writes by the service
	Version           int64  // counts every write
	ModelID           string // the Plug and Play model the device announced
	Tags              json.RawMessage
	Desired, Reported twin.Section

	// Whether decodeTwin has read it, and the metadata that it had.
	stored                        bool
	storedDesired, storedReported json.RawMessage
	Configurations                json.RawMessage // those that have it as a target, with their statuses; nil if none has
}

// twinFormat is the first byte of a stored twin. The rest are the numbers as
// varints, and the texts with their length in front: a query reads a section
// where it lies, without decoding the others.
const twinFormat = 1

func (t *twinRecord) bytes() []byte {
	b := make([]byte, 0, 64+len(t.ModelID)+len(t.Tags)+
		len(t.Desired.Properties)+len(t.Desired.Metadata)+len(t.Reported.Properties)+len(t.Reported.Metadata))
	b = append(b, twinFormat)
	b = binary.AppendUvarint(b, t.ETag)
	b = binary.AppendUvarint(b, uint64(t.Version))
	b = appendText(b, t.ModelID)
	b = appendText(b, t.Tags)
	for _, s := range []twin.Section{t.Desired, t.Reported} {
		b = binary.AppendUvarint(b, uint64(s.Version))
		b = appendText(b, s.Properties)
		b = appendText(b, s.Metadata)
	}
	if len(t.Configurations) > 0 {
		b = appendText(b, t.Configurations)
	}
	return b
}

func appendText[T string | json.RawMessage](b []byte, text T) []byte {
	b = binary.AppendUvarint(b, uint64(len(text)))
	return append(b, text...)
}

// decodeTwin reads what bytes wrote. The texts are slices of data.
func decodeTwin(data []byte) (twinRecord, error) {
	if len(data) == 0 || data[0] != twinFormat {
		return twinRecord{}, errors.New("stored twin: unknown format")
	}
	d := fieldReader{rest: data[1:]}
	t := twinRecord{ETag: d.number(), Version: int64(d.number()), ModelID: string(d.text()), Tags: d.text()}
	for _, s := range []*twin.Section{&t.Desired, &t.Reported} {
		s.Version = int64(d.number())
		s.Properties = d.text()
		s.Metadata = d.text()
	}
	if len(d.rest) > 0 {
		t.Configurations = d.text()
	}
	if d.cut {
		return twinRecord{}, errors.New("stored twin: cut short")
	}
	t.stored, t.storedDesired, t.storedReported = true, t.Desired.Metadata, t.Reported.Metadata
	return t, nil
}

// A fieldReader reads varints and length-prefixed texts.
type fieldReader struct {
	rest []byte
	cut  bool // something was missing
}

func (d *fieldReader) number() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.cut = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *fieldReader) text() []byte {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.cut = true
		return nil
	}
	t := d.rest[:n:n]
	d.rest = d.rest[n:]
	return t
}

// etag returns the twin's etag: the base64 form of an eight byte counter.
func (t twinRecord) etag() string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, t.ETag))
}

// A TwinView is a twin with what its document shows of the identity and the
// connection. MarshalJSON prints the document of the service's REST API.
type TwinView struct {
	Identity Identity
	State    ConnectionState
	record   twinRecord
}

// ETag returns the twin's etag, without quotes.
func (v TwinView) ETag() string { return v.record.etag() }

// MarshalJSON prints the twin as the service does; see "Understand and use
// device twins in IoT Hub". The sections, which are JSON already, are by far the
// most of it and copied as they are.
func (v TwinView) MarshalJSON() ([]byte, error) {
	head, err := marshal(struct {
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
		ETag: v.record.etag(), DeviceETag: v.Identity.ETag(),
		Status: v.Identity.Status, StatusReason: v.Identity.StatusReason,
		StatusUpdateTime: twin.FormatTime(v.Identity.StatusUpdated),
		ConnectionState:  v.State.String(), LastActivityTime: twin.FormatTime(v.State.LastActivity),
		C2DCount: v.State.PendingMessages, AuthType: v.Identity.Auth.Type, X509: v.Identity.Auth.X509,
		ModelID: v.record.ModelID, Version: v.record.Version,
	})
	if err != nil {
		return nil, err
	}
	tail := struct {
		Capabilities *capabilities `json:"capabilities,omitempty"`
		DeviceScope  string        `json:"deviceScope,omitempty"`
		ParentScopes []string      `json:"parentScopes,omitempty"`

		Configurations json.RawMessage `json:"configurations,omitempty"`
	}{DeviceScope: v.Identity.DeviceScope, ParentScopes: v.Identity.ParentScopes, Configurations: v.record.Configurations}
	if v.Identity.Module == "" {
		tail.Capabilities = &capabilities{v.Identity.IoTEdge}
	}
	end, err := marshal(tail)
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
	return s.view(i, t), nil
}

func (s *Server) view(i Identity, t twinRecord) TwinView {
	return TwinView{Identity: i, State: s.ConnectionState(i.ID), record: t}
}

// twinOf turns the result of a Get into a twin.
func twinOf(id ID, data []byte, err error) (twinRecord, error) {
	if errors.Is(err, store.ErrNotFound) {
		return twinRecord{}, id.notFound()
	}
	if err != nil {
		return twinRecord{}, err
	}
	return decodeTwin(data)
}

// A TwinChange is what the service may write of a twin. Nil leaves a section
// alone in a patch, and empties it in a replacement. Read-only members at the
// root of Desired ("$metadata", "$version") are ignored.
type TwinChange struct {
	Tags    json.RawMessage
	Desired json.RawMessage

	// By says in the event of the change who makes it, such as "policy service";
	// empty is nobody.
	By string
}

// PatchTwin merges c into the twin and sends the desired properties of c to
// the device if it is connected and subscribed.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrArgumentInvalid, ErrTwinTooLarge.
func (s *Server) PatchTwin(id ID, c TwinChange, m Match) (TwinView, error) {
	return s.changeTwin(id, m, c.patch)
}

// ReplaceTwin replaces the tags and desired properties of the twin by c and
// sends the desired properties to the device if it is connected and
// subscribed. The errors are those of PatchTwin.
func (s *Server) ReplaceTwin(id ID, c TwinChange, m Match) (TwinView, error) {
	return s.changeTwin(id, m, c.replace)
}

// A twinWrite changes a twin and returns who is told what.
type twinWrite func(t *twinRecord, now time.Time) (twinNotice, error)

// A twinNotice is what is told of a write of the service.
type twinNotice struct {
	device        json.RawMessage // to the device; nil is nothing
	replaced      bool            // or patched, with these:
	tags, desired json.RawMessage // nil is a section left alone
	by            string          // who wrote
}

func (c TwinChange) patch(t *twinRecord, now time.Time) (notice twinNotice, err error) {
	notice.by = c.By
	if len(c.Tags) > 0 {
		if t.Tags, err = twin.MergeTags(t.Tags, c.Tags); err != nil {
			return twinNotice{}, err
		}
		notice.tags = c.Tags
	}
	if len(c.Desired) == 0 {
		return notice, nil
	}
	patch, err := twin.StripReadOnly(c.Desired)
	if err != nil {
		return twinNotice{}, err
	}
	before := t.Desired.Version
	if t.Desired, err = t.Desired.Patch(twin.Desired, patch, now); err != nil || t.Desired.Version == before {
		return notice, err
	}
	notice.desired = patch
	notice.device = twin.WithVersion(patch, t.Desired.Version)
	return notice, nil
}

func (c TwinChange) replace(t *twinRecord, now time.Time) (notice twinNotice, err error) {
	if len(c.Tags) == 0 {
		c.Tags = json.RawMessage("{}")
	}
	if len(c.Desired) == 0 {
		c.Desired = json.RawMessage("{}")
	}
	if t.Tags, err = twin.ReplaceTags(c.Tags); err != nil {
		return twinNotice{}, err
	}
	doc, err := twin.StripReadOnly(c.Desired)
	if err != nil {
		return twinNotice{}, err
	}
	if t.Desired, err = t.Desired.Replace(twin.Desired, doc, now); err != nil {
		return twinNotice{}, err
	}
	return twinNotice{device: t.Desired.Device(), replaced: true, by: c.By}, nil
}

func (s *Server) changeTwin(id ID, m Match, change twinWrite) (TwinView, error) {
	var view TwinView
	err := s.store.Update(id.Device, func(tx *store.Tx) (err error) {
		view, err = s.writeTwin(tx, id, m, change)
		return err
	})
	return view, err
}

// writeTwin applies a write of the service. The device is told after the write
// is durable and before the next write of the same twin, so that versions
// arrive in order.
func (s *Server) writeTwin(tx *store.Tx, id ID, m Match, change twinWrite) (TwinView, error) {
	if id.Module != "" {
		if _, err := txIdentity(tx, ID{Device: id.Device}); err != nil {
			return TwinView{}, err
		}
	}
	i, err := txIdentity(tx, id)
	if err != nil {
		return TwinView{}, err
	}
	data, err := tx.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	if err != nil {
		return TwinView{}, err
	}
	if m.ETag != "" && m.ETag != t.etag() {
		return TwinView{}, ErrPreconditionFailed.with("ETag mismatch for device ID '%s'", id.Device)
	}
	now := s.now()
	notice, err := change(&t, now)
	if err != nil {
		return TwinView{}, twinError(err)
	}
	t.ETag++
	t.Version++
	t.store(tx, id)
	tx.OnCommit(func() {
		s.metrics.twinWrite("service")
		s.configurations.touch(id)
		s.twinWritten(id, t, notice, now)
		if notice.device == nil {
			return
		}
		if c := s.connection(id); c != nil {
			c.sendDesired(t.Desired.Version, notice.device)
		}
	})
	return s.view(i, t), nil
}

// DeviceTwin returns the twin as its device or module sees it: desired and
// reported properties with their versions, without metadata and tags.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound.
func (s *Server) DeviceTwin(id ID) (json.RawMessage, error) {
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

// AnyVersion as the condition of PatchReported is no condition.
const AnyVersion = -1

// PatchReported merges a device's patch into its reported properties and
// returns their new version. With a condition other than AnyVersion the patch
// is applied only while that is the current version.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrArgumentInvalid, ErrTwinTooLarge.
func (s *Server) PatchReported(id ID, patch []byte, condition int64) (version int64, err error) {
	err = s.store.Update(id.Device, func(tx *store.Tx) error {
		data, err := tx.Get(id.twinKey())
		t, err := twinOf(id, data, err)
		if err != nil {
			return err
		}
		if condition != AnyVersion && condition != t.Reported.Version {
			return ErrPreconditionFailed.with("the version of the reported properties is %d, not %d", t.Reported.Version, condition)
		}
		now := s.now()
		if t.Reported, err = t.Reported.Patch(twin.Reported, patch, now); err != nil {
			return twinError(err)
		}
		t.Version++
		version = t.Reported.Version
		t.store(tx, id)
		tx.OnCommit(func() { s.twinReported(id, t, patch, now) })
		return nil
	})
	if err == nil {
		s.configurations.touch(id)
		s.metrics.twinWrite("device")
	}
	return version, err
}

// setModel stores the Plug and Play model that a device announced in CONNECT.
func (s *Server) setModel(id ID, model string) error {
	data, err := s.store.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	if err != nil || t.ModelID == model {
		return err
	}
	return s.store.Update(id.Device, func(tx *store.Tx) error {
		data, err := tx.Get(id.twinKey())
		t, err := twinOf(id, data, err)
		if err != nil {
			return err
		}
		t.ModelID = model
		t.store(tx, id)
		return nil
	})
}

// twinError gives a rule of package twin the hub's number.
func twinError(err error) error {
	var refused *twin.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("change twin: %w", err)
	}
	if refused.Reason == twin.TooLarge {
		return ErrTwinTooLarge.with("%s", refused.Message)
	}
	return ErrArgumentInvalid.with("%s", refused.Message)
}
