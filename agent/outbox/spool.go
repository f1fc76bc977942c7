package outbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/iotdm/iotdm/mqttdevice"
)

// The spool is a folder in that of the outbox, in which other processes leave
// messages whether or not one runs that has the outbox open, and in any
// language: a file whose name ends with ".json", put there by a rename, with one
// message on each line:
//
//	{"body": {"temperature": 21.5}}
//	{"payload": "AQID", "contentType": "application/octet-stream", "properties": {"alert": "true"}}
//
// body is JSON and sent as such, payload is base64; id, correlationId, userId,
// contentType, contentEncoding, created (RFC 3339) and properties are optional.
// Files are taken in the order of their names, and removed once the outbox has
// their messages. One that makes no sense gets the suffix ".rejected".
const (
	spoolFolder    = "spool"
	spoolSuffix    = ".json"
	rejectedSuffix = ".rejected"

	maxSpoolFiles = 4096
	maxSpoolFile  = 64 << 20
	spoolBatch    = 64 // messages that are added at once
	spoolInterval = 500 * time.Millisecond
)

// ErrSpoolFull means that too many messages wait to be taken.
var ErrSpoolFull = errors.New("too many messages wait to be taken by the agent; is it running?")

// spooled is a message as a line of a file.
type spooled struct {
	header
	Payload []byte          `json:"payload,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Spool leaves messages for the process that has the outbox in dir open, or
// the next one that will. They are durable when it returns, and keep the order
// of calls. It completes them as Add does, and wraps ErrSpoolFull when 4096
// calls were not taken.
func Spool(dir string, messages ...mqttdevice.Message) error {
	err := spool(dir, time.Now(), messages)
	if err != nil {
		return fmt.Errorf("outbox %s: %w", dir, plain(err))
	}
	return nil
}

func spool(dir string, now time.Time, messages []mqttdevice.Message) error {
	dir = filepath.Join(dir, spoolFolder)
	if err := makeFolder(dir); err != nil {
		return err
	}
	if files, err := os.ReadDir(dir); err != nil {
		return err
	} else if len(files) >= maxSpoolFiles {
		return ErrSpoolFull
	}
	prefix := rand.Text()[:10]
	var content bytes.Buffer
	lines := json.NewEncoder(&content)
	for i, m := range messages {
		if m.ID == "" {
			m.ID = fmt.Sprintf("%s-%d", prefix, i+1)
		}
		if m.Created.IsZero() {
			m.Created = now
		}
		if err := m.Validate(); err != nil {
			return err
		}
		if err := lines.Encode(spooled{header: headerOf(m), Payload: m.Payload}); err != nil {
			return err
		}
	}
	name := fmt.Sprintf("%020d-%s%s", now.UnixNano(), prefix, spoolSuffix)
	hidden := filepath.Join(dir, "."+name)
	f, err := os.OpenFile(hidden, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(content.Bytes())
	if err == nil {
		err = syncData(f)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(hidden, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(hidden))
	}
	return syncFolder(dir)
}

// Collect takes what is in the spool, twice a second, until ctx ends or the
// outbox is closed; the error says which. What cannot be added, because the
// disk is full, stays in the spool and is tried again.
func (b *Box) Collect(ctx context.Context) error {
	tick := time.NewTicker(spoolInterval)
	defer tick.Stop()
	var last string
	for {
		err := b.collect()
		if errors.Is(err, ErrClosed) {
			return err
		}
		text := fmt.Sprint(err)
		if err != nil && text != last {
			b.logger.Error("messages in the spool cannot be taken", logError, err)
		}
		last = text
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// collect takes what is in the spool now.
func (b *Box) collect() error {
	dir := filepath.Join(b.dir, spoolFolder)
	files, err := os.ReadDir(dir) // sorted
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") || !strings.HasSuffix(f.Name(), spoolSuffix) || !f.Type().IsRegular() {
			continue
		}
		if err := b.takeFile(filepath.Join(dir, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// takeFile adds the messages of a file and removes it. After an error it goes on
// where it was; after a crash in between they are all added again, with the ids
// they have already.
func (b *Box) takeFile(file string) error {
	messages, err := readSpooled(file)
	if errors.Is(err, errRejected) {
		b.logger.Warn("a file in the spool is set aside", logFile, file+rejectedSuffix, logError, err)
		return os.Rename(file, file+rejectedSuffix)
	} else if err != nil {
		return err
	}
	if b.spooled.file != file {
		b.spooled.file, b.spooled.taken = file, 0
	}
	for messages = messages[min(b.spooled.taken, len(messages)):]; len(messages) > 0; {
		n := min(spoolBatch, len(messages))
		if err := b.Add(messages[:n]...); err != nil {
			return err
		}
		b.spooled.taken += n
		messages = messages[n:]
	}
	if err := os.Remove(file); err != nil {
		return err
	}
	b.spooled.file = ""
	return nil
}

var errRejected = errors.New("not messages")

func readSpooled(file string) ([]mqttdevice.Message, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxSpoolFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxSpoolFile {
		return nil, fmt.Errorf("%w: more than %d MiB", errRejected, maxSpoolFile>>20)
	}
	var messages []mqttdevice.Message
	n := 0
	for line := range bytes.Lines(content) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		m, err := parseSpooled(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errRejected, n, err)
		}
		messages = append(messages, m)
	}
	return messages, nil
}

func parseSpooled(line []byte) (mqttdevice.Message, error) {
	var s spooled
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields() // a name that is misspelt would be lost in silence
	if err := dec.Decode(&s); err != nil {
		return mqttdevice.Message{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return mqttdevice.Message{}, errors.New("there is more than one value")
	}
	if len(s.Body) > 0 {
		if s.Payload != nil {
			return mqttdevice.Message{}, errors.New("there are both body and payload")
		}
		s.Payload = s.Body
		if s.ContentType == "" {
			s.ContentType, s.ContentEncoding = mqttdevice.JSONType, mqttdevice.JSONEncoding
		}
	}
	m := s.message(s.Payload)
	return m, m.Validate()
}
