package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/iotdm/iotdm/hub/journal"
	"github.com/iotdm/iotdm/twin"
)

// A TwinChange is what the service may write of a twin. Nil leaves a section
// alone in a patch, and empties it in a replacement. Read-only members at the
// root of Desired ("$metadata", "$version") are ignored.
type TwinChange struct {
	Tags    json.RawMessage
	Desired json.RawMessage

	// ClearDesired removes all desired properties, instead of merging Desired.
	// It is what null in place of them means in a patch, as the tests of the
	// Node SDK have it; null in place of tags or of all properties means nothing
	// there, because the Java SDK sends it with every patch.
	ClearDesired bool `json:",omitempty"`

	// By says in the event of the change who makes it, such as "policy service";
	// empty is nobody.
	By string
}

// Empty reports whether a patch by c changes nothing.
func (c TwinChange) Empty() bool { return len(c.Tags) == 0 && len(c.Desired) == 0 && !c.ClearDesired }

// PatchTwin merges c into the twin and sends the desired properties of c to
// the device if it is connected and subscribed.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrArgumentInvalid, ErrTwinTooLarge.
func (s *Server) PatchTwin(id ID, c TwinChange, m Match) (TwinView, error) {
	return s.changeTwin(id, m, c.Patch)
}

// ReplaceTwin replaces the tags and desired properties of the twin by c and
// sends the desired properties to the device if it is connected and
// subscribed, with those that are gone as null. The errors are those of
// PatchTwin.
func (s *Server) ReplaceTwin(id ID, c TwinChange, m Match) (TwinView, error) {
	return s.changeTwin(id, m, c.replace)
}

// Validate says what no twin can take of c, if anything.
//
// Errors: ErrArgumentInvalid, ErrTwinTooLarge.
func (c TwinChange) Validate(now time.Time) error {
	blank := newTwin(ID{}, now)
	_, err := c.Patch(&blank, now)
	return err
}

// Patch merges c into a twin, and returns what PutTwin has to know of that.
//
// Errors: ErrArgumentInvalid, ErrTwinTooLarge. The twin is spoiled then.
func (c TwinChange) Patch(t *Twin, now time.Time) (w TwinWrite, err error) {
	w = TwinWrite{Side: ByService, By: c.By}
	if len(c.Tags) > 0 {
		if t.Tags, err = twin.MergeTags(t.Tags, c.Tags); err != nil {
			return w, TwinError(err)
		}
		w.Tags = c.Tags
	}
	switch {
	case c.ClearDesired:
		w.Desired, err = replaceDesired(t, json.RawMessage("{}"), now)
		return w, err
	case len(c.Desired) == 0:
		return w, nil
	}
	patch, err := twin.StripReadOnly(c.Desired)
	if err != nil {
		return w, TwinError(err)
	}
	before := t.Desired.Version
	if t.Desired, err = t.Desired.Patch(twin.Desired, patch, now); err != nil {
		return w, TwinError(err)
	}
	if t.Desired.Version != before {
		w.Desired = patch
	}
	return w, nil
}

func (c TwinChange) replace(t *Twin, now time.Time) (w TwinWrite, err error) {
	if len(c.Tags) == 0 {
		c.Tags = json.RawMessage("{}")
	}
	if len(c.Desired) == 0 {
		c.Desired = json.RawMessage("{}")
	}
	if t.Tags, err = twin.ReplaceTags(c.Tags); err != nil {
		return w, TwinError(err)
	}
	doc, err := twin.StripReadOnly(c.Desired)
	if err != nil {
		return w, TwinError(err)
	}
	w = TwinWrite{Side: ByService, By: c.By, Replaced: true}
	w.Desired, err = replaceDesired(t, doc, now)
	return w, err
}

// replaceDesired puts doc in place of the desired properties, and returns what
// the device is told of that.
func replaceDesired(t *Twin, doc json.RawMessage, now time.Time) (told json.RawMessage, err error) {
	before := t.Desired.Properties
	if t.Desired, err = t.Desired.Replace(twin.Desired, doc, now); err != nil {
		return nil, TwinError(err)
	}
	return twin.Replacement(before, t.Desired.Properties), nil
}

func (s *Server) changeTwin(id ID, m Match, change func(*Twin, time.Time) (TwinWrite, error)) (TwinView, error) {
	var view TwinView
	err := s.Update(id.Device, func(tx *Tx) (err error) {
		i, t, err := tx.changeTwin(id, m, change)
		if err == nil {
			view = s.View(i, t)
		}
		return err
	})
	return view, err
}

// PatchTwin merges c into the twin. The errors are those of Server.PatchTwin.
func (tx *Tx) PatchTwin(id ID, c TwinChange, m Match) error {
	_, _, err := tx.changeTwin(id, m, c.Patch)
	return err
}

func (tx *Tx) changeTwin(id ID, m Match, change func(*Twin, time.Time) (TwinWrite, error)) (Identity, Twin, error) {
	i, err := tx.Identity(id)
	if err != nil {
		return i, Twin{}, err
	}
	t, err := tx.Twin(id)
	if err != nil {
		return i, t, err
	}
	if m.ETag != "" && m.ETag != t.ETag() {
		return i, t, ErrPreconditionFailed.With("ETag mismatch for device ID '%s'", id.Device)
	}
	w, err := change(&t, tx.now)
	if err != nil {
		return i, t, err
	}
	tx.PutTwin(id, &t, w)
	return i, t, nil
}

// AnyVersion as the condition of PatchReported is no condition.
const AnyVersion = -1

// PatchReported merges a patch into the reported properties of the identity of a
// link and returns their new version. With a condition other than AnyVersion the
// patch is applied only while that is the current version.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrPreconditionFailed,
// ErrArgumentInvalid, ErrTwinTooLarge; in a cluster, ErrTakenOver.
func (s *Server) PatchReported(id ID, patch []byte, condition int64) (version int64, err error) {
	if s.journal != nil {
		defer func() { s.noteTwin(id, journal.Reported, patch, err) }()
	}
	err = s.Update(id.Device, func(tx *Tx) (err error) {
		if err := tx.held(id); err != nil {
			return err
		}
		version, err = tx.PatchReported(id, patch, condition)
		return err
	})
	return version, err
}

// PatchReported is Server.PatchReported, whoever has the link.
func (tx *Tx) PatchReported(id ID, patch []byte, condition int64) (version int64, err error) {
	t, err := tx.Twin(id)
	if err != nil {
		return 0, err
	}
	if condition != AnyVersion && condition != t.Reported.Version {
		return 0, ErrPreconditionFailed.With("the version of the reported properties is %d, not %d", t.Reported.Version, condition)
	}
	if t.Reported, err = t.Reported.Patch(twin.Reported, patch, tx.now); err != nil {
		return 0, TwinError(err)
	}
	tx.PutTwin(id, &t, TwinWrite{Side: ByDevice, Reported: patch})
	return t.Reported.Version, nil
}

// announceModel stores the Plug and Play model that a device announced when it
// connected.
func (s *Server) announceModel(id ID, model string) error {
	data, err := s.store.Get(id.twinKey())
	t, err := twinOf(id, data, err)
	if err != nil || t.ModelID == model {
		return err
	}
	return s.Update(id.Device, func(tx *Tx) error {
		t, err := tx.Twin(id)
		if err != nil {
			return err
		}
		t.ModelID = model
		tx.PutTwin(id, &t, TwinWrite{Side: byConnecting})
		return nil
	})
}

// TwinError gives a rule of package twin the hub's number.
func TwinError(err error) error {
	var refused *twin.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("change twin: %w", err)
	}
	if refused.Reason == twin.TooLarge {
		return ErrTwinTooLarge.With("%s", refused.Message)
	}
	return ErrArgumentInvalid.With("%s", refused.Message)
}
