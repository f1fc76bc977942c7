package hub

import (
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/sas"
)

// RegenerateKeys gives a device or module a new primary key, secondary key or
// both. A connection that was made with a key that is gone ends.
//
// Errors: ErrDeviceNotFound, ErrModuleNotFound, ErrInvalidOperation (the
// identity does not use keys).
func (s *Server) RegenerateKeys(id ID, primary, secondary bool) (Identity, error) {
	var result Identity
	err := s.store.Update(id.Device, func(tx *store.Tx) error {
		i, err := txIdentity(tx, id)
		if err != nil {
			return err
		}
		if i.Auth.Type != AuthSAS {
			return ErrInvalidOperation.with("the identity's authentication type is %s, not sas", i.Auth.Type)
		}
		if primary {
			i.Auth.SymmetricKey.Primary = sas.NewKey()
		}
		if secondary {
			i.Auth.SymmetricKey.Secondary = sas.NewKey()
		}
		i.Version++
		if err := writeIdentity(tx, i); err != nil {
			return err
		}
		tx.OnCommit(func() { s.recheckLinks(id) })
		result = i
		return nil
	})
	return result, err
}
