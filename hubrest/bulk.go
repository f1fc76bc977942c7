package hubrest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// MaxBulk is how many identities one bulk request may name.
const MaxBulk = 100

// ImportMode says what a bulk request does with an entry.
type ImportMode string

// The import modes. Those with IfMatch compare ETag, the one for twins TwinETag.
const (
	ImportCreate                    ImportMode = "create"
	ImportUpdate                    ImportMode = "update"
	ImportUpdateIfMatchETag         ImportMode = "updateIfMatchETag"
	ImportCreateOrUpdate            ImportMode = "createOrUpdate" // also what an empty mode means
	ImportCreateOrUpdateIfMatchETag ImportMode = "createOrUpdateIfMatchETag"
	ImportDelete                    ImportMode = "delete"
	ImportDeleteIfMatchETag         ImportMode = "deleteIfMatchETag"
	ImportUpdateTwin                ImportMode = "updateTwin" // tags and desired properties only
	ImportUpdateTwinIfMatchETag     ImportMode = "updateTwinIfMatchETag"
)

// A BulkEntry is one identity of a bulk request, or one line of an import file. It may hold keys: don't log it whole.
type BulkEntry struct {
	ID             string          `json:"id"`
	ModuleID       string          `json:"moduleId,omitempty"`
	ManagedBy      string          `json:"managedBy,omitempty"` // of a module
	ETag           string          `json:"eTag,omitempty"`      // without quotes
	ImportMode     ImportMode      `json:"importMode,omitempty"`
	Status         Status          `json:"status,omitempty"`
	StatusReason   string          `json:"statusReason,omitempty"`
	Authentication Authentication  `json:"authentication,omitzero"`
	TwinETag       string          `json:"twinETag,omitempty"`
	Tags           json.RawMessage `json:"tags,omitempty"`
	Properties     BulkProperties  `json:"properties,omitzero"`
	Capabilities   *Capabilities   `json:"capabilities,omitempty"`
	DeviceScope    string          `json:"deviceScope,omitempty"`
	ParentScopes   []string        `json:"parentScopes,omitempty"`
}

// BulkProperties are the twin properties of a BulkEntry.
type BulkProperties struct {
	Desired  json.RawMessage `json:"desired,omitempty"`
	Reported json.RawMessage `json:"reported,omitempty"`
}

// BulkResult is what became of a bulk request.
type BulkResult struct {
	IsSuccessful bool          `json:"isSuccessful"` // false when at least one entry failed; the others took effect
	Errors       []BulkError   `json:"errors"`
	Warnings     []BulkWarning `json:"warnings"`
}

// A BulkError tells why one entry failed.
type BulkError struct {
	DeviceID string `json:"deviceId"`
	ModuleID string `json:"moduleId,omitempty"`
	Code     int    `json:"errorCode,omitempty"` // IoT Hub's six digits, such as 409001; 0 when the hub gave a name only
	Name     string `json:"errorName,omitempty"` // such as DeviceAlreadyExists; empty when the hub gave the number only
	Message  string `json:"errorStatus"`
}

// Error names the identity and says what happened.
func (e BulkError) Error() string {
	code := e.Name
	if e.Code != 0 {
		code = strconv.Itoa(e.Code)
	}
	return fmt.Sprintf("%s: %s: %s", Target{e.DeviceID, e.ModuleID}.noun(), code, e.Message)
}

// UnmarshalJSON reads the spellings of bulk requests and of key regeneration, the code a number or a name.
func (e *BulkError) UnmarshalJSON(b []byte) error {
	var wire struct {
		ID, DeviceID, ModuleID, ErrorStatus string
		ErrorCode                           json.RawMessage
	}
	if err := json.Unmarshal(b, &wire); err != nil {
		return err
	}
	*e = BulkError{DeviceID: cmp.Or(wire.DeviceID, wire.ID), ModuleID: wire.ModuleID, Message: wire.ErrorStatus}
	e.Code, e.Name = parseCode(wire.ErrorCode)
	return nil
}

// A BulkWarning tells what went otherwise than it should with one entry that took effect.
type BulkWarning struct {
	DeviceID string `json:"deviceId"`
	Code     string `json:"warningCode"` // such as DeviceRegisteredWithoutTwin
	Message  string `json:"warningStatus"`
}

// Bulk creates, updates or deletes up to MaxBulk identities, each of which may occur once. The error is nil also when
// entries failed: see BulkResult. After an error without an answer (a broken connection) nobody knows what took effect.
// See the article "Import and export IoT Hub device identities in bulk".
func (c *Client) Bulk(ctx context.Context, entries []BulkEntry) (BulkResult, error) {
	var result BulkResult
	_, err := c.do(ctx, request{
		what:   "bulk request",
		method: http.MethodPost,
		path:   []string{"devices"},
		body:   entries,
		repeat: repeatRefused,
		accept: func(status int, h http.Header) bool {
			const failed = "BulkRegistryOperationFailure"
			return status == http.StatusBadRequest && (h.Get("iothub-errorcode") == failed || h.Get("IotHubErrorCode") == failed)
		},
	}, &result)
	return result, err
}
