package node

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/store"
)

// Records are what a hub of several nodes begins with that takes over from the
// stopped hub of one node in the data folder dir: its state, its policies and its
// CA. They can be read until release.
//
// Errors: ErrNeverRun, ErrFolderInUse, and those of store.Open.
func Records(dir string) (_ store.Records, release func() error, err error) {
	if _, err := os.Stat(filepath.Join(dir, infoFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, folderProblem(dir, ErrNeverRun)
	}
	storage, unlock, err := Folder(dir).Hold()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unlock())
		}
	}()
	type record struct{ key, value []byte }
	var more []record // in the order of their keys
	switch text, err := os.ReadFile(filepath.Join(storage.dir, caKeyFile)); {
	case err == nil:
		more = append(more, record{[]byte(disk.ClusterCA), text})
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, folderProblem(dir, err)
	}
	list, err := readPolicies(filepath.Join(storage.dir, policiesFile))
	if err != nil {
		return nil, nil, folderProblem(dir, err)
	}
	if list != nil {
		text, err := json.Marshal(list)
		if err != nil {
			return nil, nil, err
		}
		more = append(more, record{[]byte(disk.ClusterPolicies), text})
	}
	db, err := store.Open(storage.StoreDir(), nil)
	if err != nil {
		return nil, nil, err
	}
	records := func(give func(key, value []byte) error) error {
		rest := more
		err := db.Records(func(key, value []byte) error {
			for len(rest) > 0 && slices.Compare(rest[0].key, key) < 0 {
				if err := give(rest[0].key, rest[0].value); err != nil {
					return err
				}
				rest = rest[1:]
			}
			return give(key, value)
		})
		for ; err == nil && len(rest) > 0; rest = rest[1:] {
			err = give(rest[0].key, rest[0].value)
		}
		return err
	}
	return records, func() error { return errors.Join(db.Close(), unlock()) }, nil
}

// WriteRecords makes, in the data folder dir, which must hold none, a hub of one node
// of what a hub of several has.
func WriteRecords(dir string, records store.Records) error {
	storage, unlock, err := Folder(dir).Hold()
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }()
	if _, err := os.Stat(filepath.Join(storage.dir, infoFile)); err == nil {
		return folderProblem(dir, errors.New("there is a hub in it already; name a new folder"))
	}
	var ca, policies []byte
	err = store.Write(storage.StoreDir(), func(give func(key, value []byte) error) error {
		return records(func(key, value []byte) error {
			switch string(key) {
			case disk.ClusterCA:
				ca = slices.Clone(value)
			case disk.ClusterPolicies:
				policies = slices.Clone(value)
			case disk.ClusterTickets: // one node makes its own
			default:
				return give(key, value)
			}
			return nil
		})
	}, nil)
	if err != nil {
		return folderProblem(dir, err)
	}
	if ca != nil {
		if err := writeFile(filepath.Join(storage.dir, caKeyFile), ca, secretMode); err != nil {
			return folderProblem(dir, err)
		}
	}
	if policies != nil {
		var list []hub.Policy
		if err := json.Unmarshal(policies, &list); err != nil {
			return err
		}
		text, err := json.MarshalIndent(list, "", "  ")
		if err == nil {
			err = writeFile(filepath.Join(storage.dir, policiesFile), text, secretMode)
		}
		if err != nil {
			return folderProblem(dir, err)
		}
	}
	f := folder{dir: storage.dir}
	return f.writeState(state{})
}
