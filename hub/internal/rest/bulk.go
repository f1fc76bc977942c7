package rest

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/sas"
)

// maxBulkBody holds 100 entries with tags and desired properties of the
// largest size.
const maxBulkBody = hub.MaxBulk * (64 << 10)

// A bulkInput is one entry of a bulk operation. Names and modes are matched
// without regard to case, which clients do not agree on.
type bulkInput struct {
	identityInput
	ID         string `json:"id"`
	ImportMode string `json:"importMode"`
	ETag       string `json:"eTag"`
	TwinETag   string `json:"twinETag"`
	Tags       json.RawMessage
	Properties struct {
		Desired  json.RawMessage
		Reported json.RawMessage
	}
}

func (in bulkInput) entry(by string) (hub.BulkEntry, error) {
	mode, ok := hub.ParseImportMode(in.ImportMode)
	if !ok {
		return hub.BulkEntry{}, hub.ErrArgumentInvalid.With("importMode '%s' is unknown", words.Clip(in.ImportMode))
	}
	if in.ID == "" {
		return hub.BulkEntry{}, hub.ErrArgumentNull.With("every entry needs an id")
	}
	e := hub.BulkEntry{
		ID: hub.ID{Device: in.ID, Module: in.ModuleID}, Mode: mode,
		ETag: strings.Trim(in.ETag, `"`), TwinETag: strings.Trim(in.TwinETag, `"`),
		Spec: in.spec(),
		Twin: hub.TwinChange{Tags: words.Present(in.Tags), Desired: words.Present(in.Properties.Desired), By: by},
	}
	e.Reported = words.Present(in.Properties.Reported)
	return e, nil
}

// bulkFailure is an entry of the answer's errors. The number is a number,
// which every SDK can read; the specification's text breaks some.
type bulkFailure struct {
	DeviceID  string  `json:"deviceId"`
	Code      int     `json:"errorCode"`
	Status    string  `json:"errorStatus"`
	ModuleID  *string `json:"moduleId"`
	Operation *string `json:"operation"`
}

func (d *Door) bulk(r *request) (reply, error) {
	var list few[bulkInput]
	if err := r.decodeUpTo(maxBulkBody, &list); err != nil {
		return reply{}, err
	}
	entries, by := make([]hub.BulkEntry, len(list)), r.caller.Title()
	for n, in := range list {
		var err error
		if entries[n], err = in.entry(by); err != nil {
			return reply{}, err
		}
	}
	failed, err := d.hub.Bulk(entries)
	if err != nil {
		return reply{}, err
	}
	body := struct {
		Successful bool          `json:"isSuccessful"`
		Errors     []bulkFailure `json:"errors"`
		Warnings   []struct{}    `json:"warnings"`
	}{len(failed) == 0, []bulkFailure{}, []struct{}{}}
	for _, f := range failed {
		e := hub.RefusalOf(f.Err)
		if e == hub.ErrServer {
			d.log.Error("bulk operation", words.LogID, f.ID, words.LogReason, f.Err)
		}
		body.Errors = append(body.Errors, bulkFailure{
			DeviceID: f.ID.Device, ModuleID: nonEmpty(f.ID.Module), Code: e.Code, Status: e.Text,
		})
	}
	if body.Successful {
		return reply{body: body}, nil
	}
	// The C# SDK returns the body, instead of throwing, when it finds a header
	// of exactly this second name.
	return reply{status: hub.ErrBulkOperation.Status, body: body, header: http.Header{
		"Iothub-Errorcode": {hub.ErrBulkOperation.Name},
		"IotHubErrorCode":  {hub.ErrBulkOperation.Name},
	}}, nil
}

func (d *Door) regenerateKeys(r *request) (reply, error) {
	type target struct {
		ID       string  `json:"id"`
		ModuleID *string `json:"moduleId"`
	}
	// The Azure CLI prints both keys of the answer, whichever were made.
	type rotated struct {
		target
		Primary   sas.Key `json:"primaryKey"`
		Secondary sas.Key `json:"secondaryKey"`
	}
	type failure struct {
		target
		Code   int    `json:"errorCode"`
		Status string `json:"errorStatus"`
	}
	var in struct {
		PolicyKey string      `json:"policyKey"`
		Devices   few[target] `json:"devices"`
	}
	if err := r.decode(&in); err != nil {
		return reply{}, err
	}
	primary, secondary := strings.EqualFold(in.PolicyKey, "primaryKey"), strings.EqualFold(in.PolicyKey, "secondaryKey")
	if strings.EqualFold(in.PolicyKey, "both") {
		primary, secondary = true, true
	}
	if !primary && !secondary {
		return reply{}, hub.ErrArgumentInvalid.With("policyKey must be primaryKey, secondaryKey or both")
	}
	if len(in.Devices) == 0 || len(in.Devices) > hub.MaxBulk {
		return reply{}, hub.ErrArgumentInvalid.With("devices must have 1 to %d entries", hub.MaxBulk)
	}
	body := struct {
		PolicyKey string    `json:"policyKey"`
		Rotated   []rotated `json:"rotatedKeys"`
		Errors    []failure `json:"errors"`
	}{in.PolicyKey, []rotated{}, []failure{}}
	for _, t := range in.Devices {
		id := hub.ID{Device: t.ID}
		if t.ModuleID != nil {
			id.Module = *t.ModuleID
		}
		i, err := d.hub.RegenerateKeys(id, primary, secondary)
		if err != nil {
			e := hub.RefusalOf(err)
			if e == hub.ErrServer {
				return reply{}, err
			}
			body.Errors = append(body.Errors, failure{t, e.Code, e.Text})
			continue
		}
		body.Rotated = append(body.Rotated, rotated{t, i.Auth.SymmetricKey.Primary, i.Auth.SymmetricKey.Secondary})
	}
	status := http.StatusOK
	switch {
	case len(body.Rotated) == 0:
		status = http.StatusBadRequest
	case len(body.Errors) > 0:
		status = http.StatusMultiStatus
	}
	return reply{status: status, body: body}, nil
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
