package configurations

import (
	"encoding/json"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/internal/jsontext"
)

// DeleteAndDie deletes a configuration as a hub does that is killed before it
// has taken anything from the twins.
func (e *Engine) DeleteAndDie(id string) error {
	e.Close()
	return e.store.Update(id, func(tx *store.Tx) error {
		tx.Delete(key(id))
		return nil
	})
}

// RememberAsAnOlderHub stores what configurations have set in a twin as an older
// hub did: the paths of their content.
func (e *Engine) RememberAsAnOlderHub(id hub.ID, paths ...string) error {
	data, err := json.Marshal(paths)
	if err != nil {
		return err
	}
	return e.store.Update(id.Device, func(tx *store.Tx) error {
		tx.Set(settingsKey(id), data)
		return nil
	})
}

// StoreAsOlderHub stores a configuration whose target condition today's rules
// refuse.
func (e *Engine) StoreAsOlderHub(c Configuration) error {
	data, err := jsontext.Marshal(c)
	if err != nil {
		return err
	}
	return e.store.Update(disk.Configuration, func(tx *store.Tx) error {
		tx.Set(key(c.ID), data)
		return nil
	})
}
