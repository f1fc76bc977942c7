package hubrest

import (
	"context"
	"net/http"
)

// DeviceStatistics counts the identities of a hub.
type DeviceStatistics struct {
	Total    int64 `json:"totalDeviceCount"`
	Enabled  int64 `json:"enabledDeviceCount"`
	Disabled int64 `json:"disabledDeviceCount"`
}

// DeviceStatistics counts the hub's device identities. It needs the right to read the registry.
func (c *Client) DeviceStatistics(ctx context.Context) (DeviceStatistics, error) {
	var s DeviceStatistics
	_, err := c.do(ctx, request{what: "count devices", method: http.MethodGet, path: []string{"statistics", "devices"}, repeat: repeatAlways}, &s)
	return s, err
}

// ConnectedDevices counts the devices that are connected. It needs the right to connect as a service.
func (c *Client) ConnectedDevices(ctx context.Context) (int64, error) {
	var s struct{ ConnectedDeviceCount int64 }
	_, err := c.do(ctx, request{what: "count connected devices", method: http.MethodGet, path: []string{"statistics", "service"}, repeat: repeatAlways}, &s)
	return s.ConnectedDeviceCount, err
}

// PurgeCommands throws away the cloud-to-device messages that wait for a device and returns how many there were.
func (c *Client) PurgeCommands(ctx context.Context, deviceID string) (int, error) {
	t := Target{DeviceID: deviceID}
	var purged struct{ TotalMessagesPurged int }
	_, err := c.do(ctx, request{
		what:   "purge messages to " + t.noun(),
		method: http.MethodDelete,
		path:   append(t.path("devices"), "commands"),
		repeat: repeatRefused, // a second purge would count none
	}, &purged)
	return purged.TotalMessagesPurged, err
}

// PolicyKey names which keys of an identity are meant.
type PolicyKey string

// The keys of an identity.
const (
	PrimaryKey   PolicyKey = "primaryKey"
	SecondaryKey PolicyKey = "secondaryKey"
	BothKeys     PolicyKey = "both"
)

// KeyRotation is what became of a request for new keys.
type KeyRotation struct {
	Rotated []Target    `json:"rotated"`
	Errors  []BulkError `json:"errors"`
}

// RegenerateKeys has the hub make new keys for up to MaxBulk devices and modules with SAS authentication. The error is
// nil also when some of them got none: see Errors. Hubs have this since api-version 2024-03-31.
func (c *Client) RegenerateKeys(ctx context.Context, which PolicyKey, targets []Target) (KeyRotation, error) {
	type identity struct {
		ID       string `json:"id"`
		ModuleID string `json:"moduleId,omitempty"`
	}
	body := struct {
		PolicyKey PolicyKey  `json:"policyKey"`
		Devices   []identity `json:"devices"`
	}{which, make([]identity, len(targets))}
	for i, t := range targets {
		body.Devices[i] = identity{t.DeviceID, t.ModuleID}
	}
	var answer struct {
		RotatedKeys []identity
		Errors      []BulkError
	}
	_, err := c.do(ctx, request{
		what:       "regenerate keys",
		method:     http.MethodPost,
		path:       []string{"devices", "keys", "regenerate"},
		apiVersion: "2024-03-31",
		body:       body,
		repeat:     repeatRefused,
	}, &answer)
	result := KeyRotation{Errors: answer.Errors}
	for _, r := range answer.RotatedKeys {
		result.Rotated = append(result.Rotated, Target{r.ID, r.ModuleID})
	}
	return result, err
}
