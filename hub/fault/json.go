package fault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// document is a fault as JSON. Its names are those of the flags of "iotdm hub fault add", with the unit of durations, and of
// identities those of an entry of the journal.
type document struct {
	ID int `json:"id,omitempty"`

	On       Point  `json:"on"`
	DeviceID string `json:"deviceId,omitempty"`
	ModuleID string `json:"moduleId,omitempty"`
	Where    string `json:"where,omitempty"`
	Path     string `json:"path,omitempty"`

	Latency            seconds `json:"latencySeconds,omitempty"`
	Status             int     `json:"status,omitempty"`
	RetryAfter         seconds `json:"retryAfterSeconds,omitempty"`
	Drop               bool    `json:"drop,omitempty"`
	Refuse             bool    `json:"refuse,omitempty"`
	ExpiredCertificate bool    `json:"expiredCertificate,omitempty"`

	Count int     `json:"count,omitempty"`
	For   seconds `json:"forSeconds,omitempty"`

	Struck *int       `json:"struck,omitempty"`
	Left   *int       `json:"left,omitempty"` // absent: no bound
	Until  *time.Time `json:"until,omitempty"`
}

// A seconds is a duration as a number of seconds in JSON.
type seconds time.Duration

// MarshalJSON prints the number.
func (d seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).Seconds()) }

// UnmarshalJSON reads a number.
func (d *seconds) UnmarshalJSON(text []byte) error {
	var n float64
	if err := json.Unmarshal(text, &n); err != nil {
		return errors.New("a duration is a number of seconds")
	}
	const most = 1 << 33 // more does not fit into a duration
	if n < -most || n > most {
		return fmt.Errorf("%g seconds are too many", n)
	}
	*d = seconds(n * float64(time.Second))
	return nil
}

func (f *Fault) document() document {
	device, module, _ := strings.Cut(f.Device, "/")
	return document{
		On: f.On, DeviceID: device, ModuleID: module, Where: f.Where, Path: f.Path,
		Latency: seconds(f.Latency), Status: f.Status, RetryAfter: seconds(f.RetryAfter),
		Drop: f.Drop, Refuse: f.Refuse, ExpiredCertificate: f.ExpiredCertificate,
		Count: f.Count, For: seconds(f.For),
	}
}

// MarshalJSON prints the fault as [Parse] reads it.
func (f Fault) MarshalJSON() ([]byte, error) { return json.Marshal(f.document()) }

// MarshalJSON prints the fault with its id, how often it has struck, how often it may yet, and when it ends.
func (a Active) MarshalJSON() ([]byte, error) {
	d := a.document()
	d.ID, d.Struck = a.ID, &a.Struck
	if n, bounded := a.Left(); bounded {
		d.Left = &n
	}
	if !a.Until.IsZero() {
		until := a.Until.UTC()
		d.Until = &until
	}
	return json.Marshal(d)
}

// Parse reads a fault in JSON, with no member that a fault does not have. One that was listed can be added again: what the
// hub says of it is left out. What is wrong with its values says [Fault.Validate].
func Parse(text []byte) (Fault, error) {
	var d document
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Fault{}, fmt.Errorf("a fault is a JSON object: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Fault{}, fmt.Errorf("a fault is one JSON object, and something stands behind it")
	}
	device := d.DeviceID
	switch {
	case strings.Contains(device, "/"):
		return Fault{}, errors.New("deviceId has no slash: a module is named by moduleId")
	case d.ModuleID != "" && device == "":
		return Fault{}, errors.New("moduleId needs deviceId")
	case d.ModuleID != "":
		device += "/" + d.ModuleID
	}
	return Fault{
		On: d.On, Device: device, Where: d.Where, Path: d.Path,
		Latency: time.Duration(d.Latency), Status: d.Status, RetryAfter: time.Duration(d.RetryAfter),
		Drop: d.Drop, Refuse: d.Refuse, ExpiredCertificate: d.ExpiredCertificate,
		Count: d.Count, For: time.Duration(d.For),
	}, nil
}
