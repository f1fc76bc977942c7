package hubrest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
)

// A Twin is the document a hub keeps about a device or module. See the article "Understand and use device twins in IoT
// Hub".
type Twin struct {
	DeviceID                  string             `json:"deviceId"`
	ModuleID                  string             `json:"moduleId"`
	ETag                      string             `json:"etag"`       // of the twin, without quotes
	DeviceETag                string             `json:"deviceEtag"` // of the identity, without quotes
	Status                    Status             `json:"status"`
	StatusReason              string             `json:"statusReason"`
	StatusUpdateTime          Time               `json:"statusUpdateTime"`
	ConnectionState           string             `json:"connectionState"` // Connected or Disconnected
	LastActivityTime          Time               `json:"lastActivityTime"`
	CloudToDeviceMessageCount int                `json:"cloudToDeviceMessageCount"`
	AuthenticationType        AuthenticationType `json:"authenticationType"`
	ModelID                   string             `json:"modelId"`
	Version                   int64              `json:"version"` // counts every change of the document
	Capabilities              Capabilities       `json:"capabilities"`
	Tags                      json.RawMessage    `json:"tags"` // nil when there are none

	// Desired and Reported are the properties, with $metadata and $version, byte for byte.
	Desired, Reported               json.RawMessage `json:"-"`
	DesiredVersion, ReportedVersion int64           `json:"-"` // their $version

	// Raw is the whole twin as the hub wrote it.
	Raw json.RawMessage `json:"-"`
}

// UnmarshalJSON reads a twin as the hub writes it, also as a row of a query.
func (t *Twin) UnmarshalJSON(b []byte) error {
	type head Twin
	var doc struct {
		head
		Properties struct{ Desired, Reported json.RawMessage }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	*t = Twin(doc.head)
	t.Desired, t.Reported = doc.Properties.Desired, doc.Properties.Reported
	for _, section := range []*json.RawMessage{&t.Tags, &t.Desired, &t.Reported} {
		if string(*section) == "null" {
			*section = nil
		}
	}
	t.Raw = bytes.Clone(b)
	for _, s := range []struct {
		properties json.RawMessage
		version    *int64
	}{{t.Desired, &t.DesiredVersion}, {t.Reported, &t.ReportedVersion}} {
		var v struct {
			Version int64 `json:"$version"`
		}
		if s.properties != nil {
			if err := json.Unmarshal(s.properties, &v); err != nil {
				return err
			}
		}
		*s.version = v.Version
	}
	return nil
}

// MarshalJSON returns Raw.
func (t Twin) MarshalJSON() ([]byte, error) {
	if t.Raw == nil {
		return []byte("null"), nil
	}
	return t.Raw, nil
}

// A TwinChange is what a service may change in a twin. Tags and Desired are JSON objects: a json.RawMessage goes as it
// is, anything else as json.Marshal has it. Members that only the hub writes ($metadata, $version) are ignored by it.
type TwinChange struct {
	Tags    any    // nil: not sent
	Desired any    // nil: not sent
	ETag    string // the change is refused (ErrPreconditionFailed) unless this is the twin's etag; empty: always change it
}

// Twin returns the twin of a device or module, or ErrNotFound.
func (c *Client) Twin(ctx context.Context, t Target) (Twin, error) {
	var twin Twin
	_, err := c.do(ctx, request{what: "get twin of " + t.noun(), method: http.MethodGet, path: t.path("twins"), repeat: repeatAlways}, &twin)
	return twin, err
}

// PatchTwin merges the change into the twin and returns the whole new twin. Members that are null are deleted, those
// not named stay; arrays and plain values are replaced.
func (c *Client) PatchTwin(ctx context.Context, t Target, change TwinChange) (Twin, error) {
	return c.changeTwin(ctx, "patch", http.MethodPatch, t, change)
}

// ReplaceTwin puts the change in the place of all tags and desired properties and returns the new twin. What the change
// leaves out is cleared.
func (c *Client) ReplaceTwin(ctx context.Context, t Target, change TwinChange) (Twin, error) {
	return c.changeTwin(ctx, "replace", http.MethodPut, t, change)
}

func (c *Client) changeTwin(ctx context.Context, verb, method string, t Target, change TwinChange) (Twin, error) {
	body := newTwinBody(change)
	r := request{what: verb + " twin of " + t.noun(), method: method, path: t.path("twins"), body: body}
	r.condition(change.ETag)
	var twin Twin
	_, err := c.do(ctx, r, &twin)
	return twin, err
}

// twinBody is a change of a twin as the hub takes it.
type twinBody struct {
	ETag       string          `json:"etag,omitempty"` // in jobs only
	Tags       any             `json:"tags,omitempty"`
	Properties *twinProperties `json:"properties,omitempty"`
}

type twinProperties struct {
	Desired any `json:"desired"`
}

func newTwinBody(change TwinChange) twinBody {
	body := twinBody{Tags: change.Tags}
	if change.Desired != nil {
		body.Properties = &twinProperties{change.Desired}
	}
	return body
}
