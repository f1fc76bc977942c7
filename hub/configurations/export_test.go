package configurations

import "github.com/iotdm/iotdm/hub/store"

// DeleteAndDie deletes a configuration as a hub does that is killed before it
// has taken anything from the twins.
func (e *Engine) DeleteAndDie(id string) error {
	return e.store.Update(id, func(tx *store.Tx) error {
		tx.Delete(key(id))
		return nil
	})
}
