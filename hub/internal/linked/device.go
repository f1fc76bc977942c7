package linked

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
)

// A Device is an identity with its twin, as a hub's bulk operations take it.
type Device struct {
	ID             string          `json:"id"`
	Status         string          `json:"status,omitempty"`
	StatusReason   string          `json:"statusReason,omitempty"`
	Authentication json.RawMessage `json:"authentication,omitempty"` // holds keys
	Capabilities   json.RawMessage `json:"capabilities,omitempty"`
	Tags           json.RawMessage `json:"tags,omitempty"`
	Properties     struct {
		Desired  json.RawMessage `json:"desired,omitempty"`
		Reported json.RawMessage `json:"reported,omitempty"`
	} `json:"properties,omitzero"`
}

// String returns the id: there are keys in the rest.
func (d Device) String() string { return d.ID }

// LogValue is String.
func (d Device) LogValue() slog.Value { return slog.StringValue(d.ID) }

// Put creates the device with its twin. One that the hub has under this id is
// removed before, with its twin; if the second half of that fails, it is gone.
func (h *Hub) Put(ctx context.Context, d Device) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, h.tooSlow())
	defer cancel()
	err := h.change(ctx, "create", d)
	if !hasStatus(err, http.StatusConflict) {
		return err
	}
	// Reported properties can be given to a new device only, and of a twin that is
	// there one would have to know what to take away.
	if err := h.delete(ctx, d.ID); err != nil {
		return err
	}
	return h.change(ctx, "create", d)
}

// Update replaces the identity of a device and returns whether it is there. Its
// twin stays: tags and desired properties of d, if it has any, are merged into it.
func (h *Hub) Update(ctx context.Context, d Device) (found bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, h.tooSlow())
	defer cancel()
	err = h.change(ctx, "update", d)
	if hasStatus(err, http.StatusNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Device returns a device with its twin, without what the hub writes into the twin
// itself ($metadata, $version), and whether it is there.
func (h *Hub) Device(ctx context.Context, id string) (d Device, found bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, h.tooSlow())
	defer cancel()
	if err := h.ask(ctx, http.MethodGet, "/devices/"+url.PathEscape(id), nil, &d); err != nil {
		if hasStatus(err, http.StatusNotFound) {
			err = nil
		}
		return Device{}, false, err
	}
	var twin Device
	if err := h.ask(ctx, http.MethodGet, "/twins/"+url.PathEscape(id), nil, &twin); err != nil {
		if hasStatus(err, http.StatusNotFound) {
			err = nil // somebody has removed it in between
		}
		return Device{}, false, err
	}
	d.ID, d.Tags, d.Properties = id, twin.Tags, twin.Properties
	for _, section := range []*json.RawMessage{&d.Properties.Desired, &d.Properties.Reported} {
		if *section, err = withoutHubs(*section); err != nil {
			return Device{}, false, fmt.Errorf("hub %q: the twin is not as documented: %w", h.name, err)
		}
	}
	return d, true, nil
}

// Delete removes a device with its twin. It need not be there.
func (h *Hub) Delete(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTime, h.tooSlow())
	defer cancel()
	return h.delete(ctx, id)
}

func (h *Hub) delete(ctx context.Context, id string) error {
	err := h.ask(ctx, http.MethodDelete, "/devices/"+url.PathEscape(id), nil, nil)
	if hasStatus(err, http.StatusNotFound) {
		return nil
	}
	return err
}

// change is a bulk operation on one device: nothing else takes an identity and its
// twin in one step.
func (h *Hub) change(ctx context.Context, mode string, d Device) error {
	body, err := json.Marshal([]struct {
		Device
		Mode string `json:"importMode"`
	}{{d, mode}})
	if err != nil {
		return fmt.Errorf("hub %q: device %q: %w", h.name, d.ID, err)
	}
	var result struct {
		Successful *bool         `json:"isSuccessful"`
		Errors     []bulkFailure `json:"errors"`
	}
	err = h.ask(ctx, http.MethodPost, "/devices", body, &result)
	var refusal *refusal
	if errors.As(err, &refusal) && len(refusal.bulk) > 0 {
		result.Errors = refusal.bulk
	} else if err != nil {
		return err
	}
	if len(result.Errors) > 0 {
		return h.refused(int(result.Errors[0].Code)/1000, int(result.Errors[0].Code), result.Errors[0].Status)
	}
	if result.Successful == nil || !*result.Successful {
		return fmt.Errorf("hub %q: the answer to a bulk operation is not as documented", h.name)
	}
	return nil
}

// withoutHubs is a section of a twin without what its hub has written there.
func withoutHubs(section json.RawMessage) (json.RawMessage, error) {
	if len(section) == 0 {
		return nil, nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(section, &members); err != nil {
		return nil, err
	}
	delete(members, "$metadata")
	delete(members, "$version")
	return json.Marshal(members)
}
