package hub

import (
	"encoding/json"

	"github.com/iotdm/iotdm/twin"
)

// NewTwin returns a twin to create an identity with: with the tags and desired
// properties of c and, unless it is empty, with reported properties. Read-only
// members at the roots are ignored.
//
// Errors: ErrArgumentInvalid, ErrTwinTooLarge.
func (tx *Tx) NewTwin(id ID, c TwinChange, reported json.RawMessage) (*Twin, error) {
	t := newTwin(id, tx.now)
	if _, err := c.Patch(&t, tx.now); err != nil {
		return nil, err
	}
	if len(reported) > 0 {
		reported, err := twin.StripReadOnly(reported)
		if err != nil {
			return nil, TwinError(err)
		}
		if t.Reported, err = t.Reported.Patch(twin.Reported, reported, tx.now); err != nil {
			return nil, TwinError(err)
		}
	}
	return &t, nil
}

// ResetTwin puts what c and reported say into the place of all that a twin has,
// in one write. The device is told of its desired properties, but not that its
// reported ones are others: it does not ask for them.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrArgumentInvalid, ErrTwinTooLarge.
func (tx *Tx) ResetTwin(id ID, c TwinChange, reported json.RawMessage) error {
	t, err := tx.Twin(id)
	if err != nil {
		return err
	}
	w, err := c.replace(&t, tx.now)
	if err != nil {
		return err
	}
	if len(reported) == 0 {
		reported = json.RawMessage("{}")
	}
	if reported, err = twin.StripReadOnly(reported); err != nil {
		return TwinError(err)
	}
	if t.Reported, err = t.Reported.Replace(twin.Reported, reported, tx.now); err != nil {
		return TwinError(err)
	}
	tx.PutTwin(id, &t, w)
	return nil
}
