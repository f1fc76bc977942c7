package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"sync"
)

// An ack acknowledges a desired property, as the article "IoT Plug and Play conventions" has it: the
// reported property of the same path gets this form.
type ack struct {
	Value       json.RawMessage `json:"value,omitempty"` // what the device has now
	Code        int             `json:"ac"`              // an HTTP status; 202 while it is being carried out
	Version     int64           `json:"av"`              // of the desired properties
	Description string          `json:"ad"`
}

// maxDescription is how long the text of an acknowledgement may be, in bytes.
const maxDescription = 512

const ackInProgress = 202

// readAck reads a reported property. It reports false for one that acknowledges nothing.
func readAck(property json.RawMessage) (a ack, ok bool) {
	var form struct {
		ack
		Code *int `json:"ac"`
	}
	if !isObject(property) || json.Unmarshal(property, &form) != nil || form.Code == nil {
		return ack{}, false
	}
	form.ack.Code = *form.Code
	return form.ack, true
}

// A memory keeps, in a file, which desired properties were carried out. A twin alone doesn't tell: its
// acknowledgement has the version of all desired properties, which moves with any of them.
type memory struct {
	file string // empty: for as long as the process lives

	mu   sync.Mutex // guards what follows
	done map[string]remembered
}

// A remembered is what was carried out last, by path.
type remembered struct {
	Version int64  `json:"version"`
	SHA256  string `json:"sha256"` // of the value
}

// openMemory opens the memory in folder; an empty folder stands for none. With an error comes a memory
// that has forgotten everything.
func openMemory(folder string) (*memory, error) {
	m := &memory{done: make(map[string]remembered)}
	if folder == "" {
		return m, nil
	}
	m.file = filepath.Join(folder, "desired.json")
	done, err := readJSON[map[string]remembered](m.file)
	if done != nil {
		m.done = done
	}
	return m, err
}

// has reports whether the value was carried out as that of the given version.
func (m *memory) has(path string, value json.RawMessage, version int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done[path] == remembered{version, digest(value)}
}

// knows reports whether a value of the property was carried out, and has not been taken back.
func (m *memory) knows(path string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.done[path]
	return ok
}

// store remembers that the wish was carried out.
func (m *memory) store(path string, w wish) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.value == nil {
		delete(m.done, path)
	} else {
		m.done[path] = remembered{w.version, digest(w.value)}
	}
	if m.file == "" {
		return nil
	}
	return writeJSON(m.file, m.done)
}

func digest(value json.RawMessage) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:])
}
