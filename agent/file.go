package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writeDurably replaces a file as a whole, and makes its folder if that is missing: after a power cut
// the file has either its old content or the new. Nobody else may read it.
func writeDurably(file string, content []byte) error {
	if err := makeFolder(filepath.Dir(file)); err != nil {
		return plainPathError(err)
	}
	return replaceFile(file, content, 0o600, true)
}

// writeJSON is writeDurably for a value.
func writeJSON(file string, value any) error {
	doc, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return writeDurably(file, doc)
}

// readJSON reads what writeJSON wrote. If there is no file, or an error, the value is zero.
func readJSON[T any](file string) (T, error) {
	var value, zero T
	doc, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return zero, nil
	case err != nil:
		return zero, plainPathError(err)
	}
	if err := json.Unmarshal(doc, &value); err != nil {
		return zero, fmt.Errorf("%s is damaged: %w", file, err)
	}
	return value, nil
}

// makeFolder makes a folder, and those it lies in, that is there after a power cut.
func makeFolder(dir string) error {
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range missing {
		syncFolder(filepath.Dir(d))
	}
	return nil
}

// syncFolder makes what has become of the names in a folder durable. Windows cannot, and need not.
func syncFolder(dir string) {
	if f, err := os.Open(dir); err == nil {
		f.Sync()
		f.Close()
	}
}

// replaceFile replaces a file as a whole: whoever reads it sees either its old content or the new.
// Durable makes that true after a power cut too.
func replaceFile(file string, content []byte, mode fs.FileMode, durable bool) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return plainPathError(err)
	}
	defer os.Remove(f.Name()) // gone already if all went well
	_, err = f.Write(content)
	if mode != 0o600 { // which it has
		err = errors.Join(err, f.Chmod(mode))
	}
	if durable {
		err = errors.Join(err, f.Sync())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil || !durable {
		return plainPathError(err)
	}
	syncFolder(filepath.Dir(file))
	return nil
}

// plainPathError words a file error without the name of the system call.
func plainPathError(err error) error {
	if e, ok := err.(*os.PathError); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}
