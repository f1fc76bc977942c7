package query

import "strings"

// A Field is a part of a row's document that a query can name and a hub keeps by itself: a member of the document, or
// one of the parts of the desired and reported properties.
type Field uint8

// The fields of twins and of the rows of devices.jobs.
const (
	// Unknown is what a document of the collection does not have.
	Unknown Field = iota

	// Document is the whole document: what "SELECT *" returns.
	Document

	DeviceID // deviceId
	ModuleID // moduleId

	ETag                      // etag
	DeviceETag                // deviceEtag
	Status                    // status, of a device or of a job's row
	StatusReason              // statusReason
	StatusUpdateTime          // statusUpdateTime
	ConnectionState           // connectionState
	LastActivityTime          // lastActivityTime
	CloudToDeviceMessageCount // cloudToDeviceMessageCount
	AuthenticationType        // authenticationType
	X509Thumbprint            // x509Thumbprint
	ModelID                   // modelId
	Version                   // version
	Tags                      // tags
	Capabilities              // capabilities
	DeviceScope               // deviceScope
	ParentScopes              // parentScopes
	Configurations            // configurations

	Properties         // properties
	Desired            // properties.desired, with "$metadata" and "$version"
	DesiredProperties  // properties.desired, with or without them
	DesiredMetadata    // properties.desired.$metadata
	DesiredVersion     // properties.desired.$version
	Reported           // properties.reported, with "$metadata" and "$version"
	ReportedProperties // properties.reported, with or without them
	ReportedMetadata   // properties.reported.$metadata
	ReportedVersion    // properties.reported.$version

	JobID                  // jobId
	JobType                // jobType
	StartTimeUTC           // startTimeUtc
	EndTimeUTC             // endTimeUtc
	CreatedDateTimeUTC     // createdDateTimeUtc
	LastUpdatedDateTimeUTC // lastUpdatedDateTimeUtc
	Outcome                // outcome
	JobError               // error

	fieldCount
)

// fieldPaths are the steps from the document to a field.
var fieldPaths = [fieldCount][]string{
	DeviceID: {"deviceId"}, ModuleID: {"moduleId"},
	ETag: {"etag"}, DeviceETag: {"deviceEtag"},
	Status: {"status"}, StatusReason: {"statusReason"}, StatusUpdateTime: {"statusUpdateTime"},
	ConnectionState: {"connectionState"}, LastActivityTime: {"lastActivityTime"},
	CloudToDeviceMessageCount: {"cloudToDeviceMessageCount"}, AuthenticationType: {"authenticationType"},
	X509Thumbprint: {"x509Thumbprint"}, ModelID: {"modelId"}, Version: {"version"}, Tags: {"tags"},
	Capabilities: {"capabilities"}, DeviceScope: {"deviceScope"}, ParentScopes: {"parentScopes"},
	Configurations: {"configurations"},

	Properties: {"properties"},
	Desired:    {"properties", "desired"}, DesiredProperties: {"properties", "desired"},
	DesiredMetadata: {"properties", "desired", "$metadata"}, DesiredVersion: {"properties", "desired", "$version"},
	Reported: {"properties", "reported"}, ReportedProperties: {"properties", "reported"},
	ReportedMetadata: {"properties", "reported", "$metadata"}, ReportedVersion: {"properties", "reported", "$version"},

	JobID: {"jobId"}, JobType: {"jobType"}, StartTimeUTC: {"startTimeUtc"}, EndTimeUTC: {"endTimeUtc"},
	CreatedDateTimeUTC: {"createdDateTimeUtc"}, LastUpdatedDateTimeUTC: {"lastUpdatedDateTimeUtc"},
	Outcome: {"outcome"}, JobError: {"error"},
}

// twinFields and jobFields are the members of the documents, by lower-cased name.
var (
	twinFields = fieldsByName(DeviceID, ModuleID, ETag, DeviceETag, Status, StatusReason, StatusUpdateTime, ConnectionState,
		LastActivityTime, CloudToDeviceMessageCount, AuthenticationType, X509Thumbprint, ModelID, Version, Tags, Capabilities,
		DeviceScope, ParentScopes, Configurations, Properties)
	jobFields = fieldsByName(DeviceID, ModuleID, JobID, JobType, Status, StartTimeUTC, EndTimeUTC, CreatedDateTimeUTC,
		LastUpdatedDateTimeUTC, Outcome, JobError)
)

func fieldsByName(fields ...Field) map[string]Field {
	m := make(map[string]Field, len(fields))
	for _, f := range fields {
		m[strings.ToLower(fieldPaths[f][0])] = f
	}
	return m
}

// fieldByName returns the field that a collection's documents have under a name. Letter case does not matter. The
// service's own tools and documents use a few names that its documents do not have.
func fieldByName(from Collection, name string) Field {
	name = strings.ToLower(name)
	if from == Jobs {
		if name == "createdtimeutc" {
			return CreatedDateTimeUTC
		}
		return jobFields[name]
	}
	switch name {
	case "id":
		return DeviceID
	case "statusupdatedtime": // Azure IoT Explorer, after the identity's member
		return StatusUpdateTime
	}
	return twinFields[name]
}

// A step leads from a value to a member or an element of it.
type step struct {
	key   string // of a member; never empty for one
	index int    // of an element, if key is empty
}

// A path names a value of a document.
type path struct {
	field Field
	name  string // of the field, if it is Unknown
	steps []step // from the field on
}

// newPath returns the path of the steps from the root of a document, of which the first has a key.
func newPath(from Collection, steps []step) *path {
	p := &path{field: fieldByName(from, steps[0].key), steps: steps[1:]}
	key := func() string {
		if len(p.steps) == 0 {
			return ""
		}
		return p.steps[0].key
	}
	enter := func(section, properties, metadata, version Field) {
		p.steps = p.steps[1:]
		switch k := key(); {
		case k == "$metadata":
			p.field, p.steps = metadata, p.steps[1:]
		case k == "$version":
			p.field, p.steps = version, p.steps[1:]
		case k != "":
			p.field = properties
		default:
			p.field = section
		}
	}
	switch {
	case p.field == Unknown:
		p.name = steps[0].key
	case p.field == Properties && key() == "desired":
		enter(Desired, DesiredProperties, DesiredMetadata, DesiredVersion)
	case p.field == Properties && key() == "reported":
		enter(Reported, ReportedProperties, ReportedMetadata, ReportedVersion)
	}
	return p
}

func (p *path) eval(d Doc) Value {
	if p.field == Unknown {
		return Value{}
	}
	return d.Field(p.field).at(p.steps)
}

// keys returns the names from the root to the field.
func (p *path) keys() []string {
	if p.field == Unknown {
		return []string{p.name}
	}
	return fieldPaths[p.field]
}

// last returns the last name of the path: the member of the result that holds its value, unless it has an alias.
func (p *path) last() string {
	for i := len(p.steps) - 1; i >= 0; i-- {
		if p.steps[i].key != "" {
			return p.steps[i].key
		}
	}
	keys := p.keys()
	return keys[len(keys)-1]
}

func (p *path) equal(q *path) bool {
	if p.field != q.field || p.name != q.name || len(p.steps) != len(q.steps) {
		return false
	}
	for i := range p.steps {
		if p.steps[i] != q.steps[i] {
			return false
		}
	}
	return true
}

// A FieldSet is a set of fields.
type FieldSet uint64

// Has reports whether the set has one of the fields.
func (s FieldSet) Has(fields ...Field) bool {
	for _, f := range fields {
		if s&(1<<f) != 0 {
			return true
		}
	}
	return false
}

// A Doc is a row as a query sees it. A query asks only for the fields it needs, and may ask for one more than once.
type Doc interface {
	// Field returns a field of the document, or undefined. The values must not change while the query looks at the
	// row.
	Field(Field) Value
}

// Text is a row that is one JSON text, such as a twin as the service returns it.
type Text []byte

// Field implements [Doc].
func (t Text) Field(f Field) Value {
	b := []byte(t)
	if f == Document {
		return JSON(b)
	}
	if f == Unknown {
		return Value{}
	}
	for _, key := range fieldPaths[f] {
		if b = member(b, key); b == nil {
			return Value{}
		}
	}
	return valueAt(b)
}
