package hub

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// A record is a kind of value in the store. The records of one row have the
// row's name behind their prefixes.
type record int

const (
	twinsRecord record = iota
	identityRecord
	activityRecord
	jobRecord
	records
)

// prefix returns what the keys of the records of a collection begin with.
func (rec record) prefix(from query.Collection) string {
	switch {
	case rec == activityRecord:
		return disk.Activity
	case rec == jobRecord:
		return disk.JobRow
	case rec == twinsRecord && from == query.Modules:
		return disk.ModuleTwin
	case rec == twinsRecord:
		return disk.DeviceTwin
	case from == query.Modules:
		return disk.Module
	}
	return disk.Device
}

// keyEnd returns the key that ends the records with names below end, or all with
// the prefix if end is empty.
func keyEnd(prefix, end string) []byte {
	if end == "" {
		return store.PrefixEnd([]byte(prefix))
	}
	return []byte(prefix + end)
}

// twinFields are the fields that are in the twin's record.
var twinFields = []query.Field{
	query.ETag, query.Version, query.ModelID, query.Tags, query.Configurations, query.Properties,
	query.Desired, query.DesiredProperties, query.DesiredMetadata, query.DesiredVersion,
	query.Reported, query.ReportedProperties, query.ReportedMetadata, query.ReportedVersion,
}

// A row is the row of a collection where a scan is. It implements query.Doc, and
// reads a record when the query asks for a field of it: most conditions can be
// answered from one record, and most rows do not match.
type row struct {
	scan *scan
	from query.Collection
	name []byte // valid until the row moves

	cursors [records]*store.Cursor
	on      [records]bool // whether the cursor is on a key
	key     []byte        // the last one looked up

	// Of the current row, once they were asked for:
	read     [records]bool
	data     [records][]byte
	twin     *Twin
	identity *Identity
	id       ID

	record Twin  // what twin points to
	err    error // the first thing that went wrong
}

// open returns a row that is before the first one of the spans.
func (sc *scan) open(spans []span) (*row, error) {
	r := &row{scan: sc, from: sc.query.From()}
	prefix := sc.main.prefix(r.from)
	c, err := sc.view.Cursor([]byte(prefix+spans[0].start), keyEnd(prefix, spans[len(spans)-1].end))
	r.cursors[sc.main] = c
	return r, err
}

func (r *row) close() error {
	var errs []error
	for _, c := range r.cursors {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// seek moves to the first row from a name on. That must not be before the row
// where it is.
func (r *row) seek(name string) bool {
	main := r.scan.main
	if !r.on[main] || string(r.name) < name {
		r.on[main] = r.cursors[main].Seek([]byte(main.prefix(r.from) + name))
	}
	return r.arrive()
}

// next moves to the next row.
func (r *row) next() bool {
	main := r.scan.main
	r.on[main] = r.cursors[main].Next()
	return r.arrive()
}

func (r *row) arrive() bool {
	main := r.scan.main
	if !r.on[main] {
		return false
	}
	r.name = r.cursors[main].Key()[len(main.prefix(r.from)):]
	r.read = [records]bool{}
	r.twin, r.identity, r.id = nil, nil, ID{}
	return true
}

// fail remembers the first error. The query sees undefined.
func (r *row) fail(err error) query.Value {
	if r.err == nil {
		r.err = err
	}
	return query.Value{}
}

// load returns a record of the row, or nil if there is none.
func (r *row) load(rec record) []byte {
	if r.read[rec] {
		return r.data[rec]
	}
	r.read[rec], r.data[rec] = true, nil
	if rec != r.scan.main && !r.find(rec) {
		return nil
	}
	data, err := r.cursors[rec].Value()
	if err != nil {
		r.fail(err)
	}
	r.data[rec] = data
	return data
}

// find moves the cursor of another record than the main one to the row.
func (r *row) find(rec record) bool {
	prefix := rec.prefix(r.from)
	r.key = append(append(r.key[:0], prefix...), r.name...)
	c := r.cursors[rec]
	if c == nil {
		var err error
		if c, err = r.scan.view.Cursor([]byte(prefix), keyEnd(prefix, "")); err != nil {
			r.fail(err)
			return false
		}
		r.cursors[rec], r.on[rec] = c, c.Seek(r.key)
	}
	// Rows come in order. If many match, the next key is the one.
	if r.on[rec] && bytes.Compare(c.Key(), r.key) < 0 {
		if r.on[rec] = c.Next(); r.on[rec] && bytes.Compare(c.Key(), r.key) < 0 {
			r.on[rec] = c.Seek(r.key)
		}
	}
	return r.on[rec] && bytes.Equal(c.Key(), r.key)
}

func (r *row) loadID() ID {
	if r.id.Device == "" {
		r.id = parseID(string(r.name))
	}
	return r.id
}

func (r *row) loadTwin() *Twin {
	if r.twin == nil {
		var err error
		if r.record, err = decodeTwin(r.load(twinsRecord)); err != nil {
			r.fail(fmt.Errorf("twin of %s: %w", r.name, err))
		}
		r.twin = &r.record
	}
	return r.twin
}

func (r *row) loadIdentity() *Identity {
	if r.identity == nil {
		i, err := decodeIdentity(r.loadID(), r.load(identityRecord), nil)
		if err != nil {
			r.fail(fmt.Errorf("identity of %s: %w", r.name, err))
		}
		r.identity = &i
	}
	return r.identity
}

// Values that need not be made for each row.
var (
	connectedState    = ConnectionState{Connected: true}.String()
	valueConnected    = query.String(connectedState)
	valueDisconnected = query.String(ConnectionState{}.String())
	valueEdge         = query.JSON([]byte(`{"iotEdge":true}`))
	valueNoEdge       = query.JSON([]byte(`{"iotEdge":false}`))
)

// Field implements query.Doc with the members of TwinView, or of a row of
// devices.jobs.
func (r *row) Field(f query.Field) query.Value {
	if r.from == query.Jobs {
		return query.Text(r.load(jobRecord)).Field(f)
	}
	switch f {
	case query.Document:
		return r.document()
	case query.DeviceID:
		device, _, _ := bytes.Cut(r.name, []byte{'/'})
		return query.String(device)
	case query.ModuleID:
		if _, module, ok := bytes.Cut(r.name, []byte{'/'}); ok {
			return query.String(module)
		}
	case query.ConnectionState:
		if r.scan.server.connected(r.loadID()) {
			return valueConnected
		}
		return valueDisconnected
	case query.LastActivityTime:
		return query.String(twin.FormatTime(r.connectionState().LastActivity))
	case query.CloudToDeviceMessageCount:
		return query.Number(float64(r.connectionState().PendingMessages))
	default:
		if query.FieldSet(1 << f).Has(twinFields...) {
			return r.twinField(f)
		}
		return r.identityField(f)
	}
	return query.Value{}
}

// connectionState is Server.ConnectionState.
func (r *row) connectionState() ConnectionState {
	id := r.loadID()
	return r.scan.server.connectionState(id, func() activity {
		if a, ok := r.scan.activity[id]; ok {
			return a
		}
		return decodeActivity(r.load(activityRecord))
	})
}

// document returns the twin as the service prints it.
func (r *row) document() query.Value {
	v := TwinView{Identity: *r.loadIdentity(), State: r.connectionState(), record: *r.loadTwin()}
	if r.err != nil {
		return query.Value{}
	}
	data, err := v.MarshalJSON()
	if err != nil {
		return r.fail(err)
	}
	return query.JSON(data)
}

func (r *row) twinField(f query.Field) query.Value {
	t := r.loadTwin()
	switch f {
	case query.ETag:
		return query.String(t.ETag())
	case query.Version:
		return query.Number(float64(t.version))
	case query.ModelID:
		return query.String(t.ModelID)
	case query.Tags:
		if string(t.Tags) == "{}" {
			return query.Value{} // as in the document
		}
		return query.JSON(t.Tags)
	case query.Configurations:
		if len(t.Configurations) > 0 {
			return query.JSON(t.Configurations)
		}
	case query.Properties:
		return query.JSON(fmt.Appendf(nil, `{"desired":%s,"reported":%s}`, t.Desired.Service(), t.Reported.Service()))
	case query.Desired:
		return query.JSON(t.Desired.Service())
	case query.DesiredProperties:
		return query.JSON(t.Desired.Properties)
	case query.DesiredMetadata:
		return query.JSON(t.Desired.Metadata)
	case query.DesiredVersion:
		return query.Number(float64(t.Desired.Version))
	case query.Reported:
		return query.JSON(t.Reported.Service())
	case query.ReportedProperties:
		return query.JSON(t.Reported.Properties)
	case query.ReportedMetadata:
		return query.JSON(t.Reported.Metadata)
	case query.ReportedVersion:
		return query.Number(float64(t.Reported.Version))
	}
	return query.Value{}
}

// identityField returns a field from the identity. Those that conditions use
// most are read where they are stored.
func (r *row) identityField(f query.Field) query.Value {
	switch f {
	case query.Status:
		return query.String(string(storedStatus(r.load(identityRecord))))
	case query.AuthenticationType:
		return query.String(string(storedAuthType(r.load(identityRecord))))
	case query.X509Thumbprint:
		return query.JSON(words.MustMarshal(r.loadIdentity().Auth.X509))
	case query.Capabilities:
		switch {
		case r.from == query.Modules:
			return query.Value{}
		case r.loadIdentity().IoTEdge:
			return valueEdge
		}
		return valueNoEdge
	case query.DeviceETag:
		return query.String(r.loadIdentity().ETag())
	case query.StatusReason:
		if reason := r.loadIdentity().StatusReason; reason != nil {
			return query.String(*reason)
		}
	case query.StatusUpdateTime:
		return query.String(twin.FormatTime(r.loadIdentity().StatusUpdated))
	case query.DeviceScope:
		if scope := r.loadIdentity().DeviceScope; scope != "" {
			return query.String(scope)
		}
	case query.ParentScopes:
		if scopes := r.loadIdentity().ParentScopes; len(scopes) > 0 {
			return query.JSON(words.MustMarshal(scopes))
		}
	}
	return query.Value{}
}
