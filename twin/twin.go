// Package twin holds the rules of a twin's sections: desired properties, reported properties and
// tags. It merges patches, counts versions, stamps $metadata, enforces the limits and finds
// differences.
//
// A hub keeps a [Section] for the desired and one for the reported properties of each device and
// module, changes it with [Section.Patch] or [Section.Replace], and shows it with
// [Section.Service] or [Section.Device]. Tags have neither versions nor metadata: [MergeTags],
// [ReplaceTags]. A client keeps its copy of the properties current with [Merge] and finds what
// changed with [Diff].
//
// Everything works on JSON text. The order of members and the text of numbers and strings stay as
// they were sent; members that are new come last; white space goes. Names are compared after
// decoding their escapes, and of members with the same name the last one counts.
//
// [Diff], [MergePatch] and [Reconcile] have one idea of what is equal: strings that decode to the same,
// arrays with equal elements, objects with equal members in whatever order, and numbers with the same
// text. So 1, 1.0 and 1e0 are three values: the hub keeps each as it was sent, and readers with types tell
// them apart. To write a value again that somebody thinks the same does no harm; to take a change for
// none would lose it.
//
// Nothing here does I/O or reads the clock. No function changes its arguments, so all of them may
// be called concurrently. The rules are those of the IoT Hub article "Understand and use device
// twins in IoT Hub".
package twin

import (
	"encoding/json"
	"strconv"
	"time"
)

// A Kind is one of the sections of a twin. It decides the limits and the metadata.
type Kind int

// The sections of a twin. Their limits are 32 KiB, 32 KiB and 8 KiB.
const (
	Desired  Kind = iota + 1 // written by the service, read by the device
	Reported                 // written by the device, read by the service
	Tags                     // written and read by the service only
)

// A Section is the desired or reported properties of a twin. Its values come from [New] and its
// own methods; the zero Section has no properties and the version 0.
type Section struct {
	Properties json.RawMessage // an object without $metadata and $version
	Metadata   json.RawMessage // the $metadata object: when each property was written
	Version    int64           // the $version: 1 when new, one more with each change
}

// New returns the empty section of a twin that is created now. A zero time stands for "never", as
// IoT Hub writes it for new modules. Desired and reported properties begin alike: $lastUpdatedVersion
// comes with the first change of desired ones.
func New(now time.Time) Section {
	meta := append([]byte{'{'}, stamp(Reported, now, 1)...)
	return Section{Properties: json.RawMessage("{}"), Metadata: append(meta, '}'), Version: 1}
}

// Patch returns s with a merge patch applied: members of objects are merged, null removes, anything
// else replaces. The patch counts as one change even where it writes what was there, and all it
// names is stamped with now, the parents of removed members included. The one exception is an empty
// desired patch, which IoT Hub ignores: the section comes back with its old version.
//
// A desired patch may carry $metadata and $version, which are ignored, because services send whole
// twins back. The error is an [*Error] if the patch is refused; nothing of it is applied then.
func (s Section) Patch(kind Kind, patch []byte, now time.Time) (Section, error) {
	patch, err := read(kind, patch)
	if err != nil {
		return Section{}, err
	}
	if kind == Desired && string(patch) == "{}" {
		return s, nil
	}
	return s.change(kind, s.Properties, s.Metadata, patch, now)
}

// Replace returns s with doc in place of all its properties, as a PUT of the twin does. A member that
// is null, at whatever depth, is refused, and an empty doc is a change. Otherwise it works as
// [Section.Patch]. [Replacement] is what the device is told of it.
func (s Section) Replace(kind Kind, doc []byte, now time.Time) (Section, error) {
	doc, err := readWhole(kind, doc)
	if err != nil {
		return Section{}, err
	}
	return s.change(kind, nil, nil, doc, now)
}

// change merges patch, which obeys the rules, into properties and metadata.
func (s Section) change(kind Kind, properties, metadata, patch []byte, now time.Time) (Section, error) {
	m := merger{
		stamp: stamp(kind, now, s.Version+1),
		props: make([]byte, 0, len(properties)+len(patch)+8),
		meta:  make([]byte, 0, len(metadata)+2*len(patch)+256),
	}
	if err := m.root(properties, metadata, patch); err != nil {
		return Section{}, err
	}
	if err := checkSize(kind, s.Properties, m.props); err != nil {
		return Section{}, err
	}
	return Section{Properties: m.props, Metadata: m.meta, Version: s.Version + 1}, nil
}

// Service returns the section as the service sees it: with $metadata and $version.
func (s Section) Service() json.RawMessage {
	b := make([]byte, 0, len(s.Properties)+len(s.Metadata)+48)
	b = openObject(b, s.Properties)
	b = append(b, `"$metadata":`...)
	if len(s.Metadata) == 0 {
		b = append(b, "{}"...)
	}
	b = append(b, s.Metadata...)
	b = append(b, `,"$version":`...)
	b = strconv.AppendInt(b, s.Version, 10)
	return append(b, '}')
}

// Device returns the section as the device sees it: with $version.
func (s Section) Device() json.RawMessage { return WithVersion(s.Properties, s.Version) }

// FormatTime returns t as the timestamps of twins, jobs and configurations are written: UTC, up to
// seven fractional digits without trailing zeros. The zero time is 0001-01-01T00:00:00Z, which
// IoT Hub uses for "never".
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

const timeLayout = "2006-01-02T15:04:05.9999999Z"

// stamp returns the members that say when a node of the metadata was written. Only the metadata of
// desired properties has $lastUpdatedVersion.
func stamp(kind Kind, now time.Time, version int64) []byte {
	b := make([]byte, 0, 96)
	b = append(b, `"$lastUpdated":"`...)
	b = now.UTC().AppendFormat(b, timeLayout)
	b = append(b, '"')
	if kind == Desired {
		b = append(b, `,"$lastUpdatedVersion":`...)
		b = strconv.AppendInt(b, version, 10)
	}
	return b
}
