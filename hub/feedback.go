package hub

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
)

// An outcome is what became of a cloud-to-device message. Those that remove it
// from the queue are the status codes of feedback.
type outcome string

const (
	completed             outcome = "Success"
	expired               outcome = "Expired"
	deliveryCountExceeded outcome = "DeliveryCountExceeded"
	rejected              outcome = "Rejected"
	purged                outcome = "Purged"
	abandoned             outcome = "" // it waits again
)

// Feedback says what became of a message whose sender wanted to know; see
// "Understand cloud-to-device messaging from an IoT hub".
type Feedback struct {
	OriginalMessageID  string    `json:"originalMessageId"`
	EnqueuedTime       time.Time `json:"enqueuedTimeUtc"` // when that became of it
	StatusCode         outcome   `json:"statusCode"`
	Description        string    `json:"description"`
	DeviceID           string    `json:"deviceId"`
	DeviceGenerationID string    `json:"deviceGenerationId"`
}

// A FeedbackBatch is what one receiver of feedback gets at a time.
type FeedbackBatch struct {
	LockToken string // settles it
	Records   []Feedback
}

const (
	feedbackTTL      = time.Hour
	feedbackBatch    = 64               // records that are handed out at once, or fewer
	feedbackInterval = 15 * time.Second // so long after the last batch
	feedbackLock     = time.Minute
)

// feedbacks is what the hub knows in memory of the feedback that waits.
type feedbacks struct {
	mu     sync.Mutex // guards what follows
	locks  map[string]feedbackLocked
	last   time.Time // when a batch was handed out
	number uint32    // of the last record
}

type feedbackLocked struct {
	keys  []string
	until time.Time
}

func (s *Server) addFeedback(tx *store.Tx, now time.Time, f Feedback) {
	s.feedbacks.mu.Lock()
	s.feedbacks.number++
	number := s.feedbacks.number
	s.feedbacks.mu.Unlock()
	f.EnqueuedTime = f.EnqueuedTime.UTC().Truncate(100 * time.Nanosecond) // as every time of the service
	tx.Set(feedbackKey(now, number), words.MustMarshal(f))
}

func feedbackKey(t time.Time, number uint32) []byte { return disk.FeedbackKey(t.UnixNano(), number) }

// ReceiveFeedback returns up to 64 records of feedback, the oldest first, and
// locks them for a minute. As on the service they come in batches: it is not ok
// while there are fewer than 64 and the last batch is less than 15 seconds old.
// Feedback of deleted devices and such that is older than an hour is dropped.
func (s *Server) ReceiveFeedback() (batch FeedbackBatch, ok bool, err error) {
	f := &s.feedbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	now := s.Now()
	locked := f.endLocks(now)
	var keys []string
	start := feedbackKey(now.Add(-feedbackTTL), 0)
	err = s.store.Scan(start, store.PrefixEnd([]byte(disk.Feedback)), func(k, v []byte) error {
		if locked[string(k)] {
			return nil
		}
		var record Feedback
		if err := json.Unmarshal(v, &record); err != nil {
			return err
		}
		i, err := s.readIdentity(ID{Device: record.DeviceID})
		if err != nil || i.GenerationID != record.DeviceGenerationID {
			return nil
		}
		batch.Records = append(batch.Records, record)
		keys = append(keys, string(k))
		if len(keys) == feedbackBatch {
			return store.ErrStop
		}
		return nil
	})
	if err != nil || len(keys) == 0 || len(keys) < feedbackBatch && now.Sub(f.last) < feedbackInterval {
		return FeedbackBatch{}, false, err
	}
	f.last = now
	batch.LockToken = words.NewRequestID().String()
	if f.locks == nil {
		f.locks = make(map[string]feedbackLocked)
	}
	f.locks[batch.LockToken] = feedbackLocked{keys, now.Add(feedbackLock)}
	return batch, true, nil
}

// endLocks ends the locks whose time is up and returns the keys that are
// locked. The caller holds f.mu.
func (f *feedbacks) endLocks(now time.Time) map[string]bool {
	locked := make(map[string]bool)
	for token, l := range f.locks {
		if !l.until.After(now) {
			delete(f.locks, token)
			continue
		}
		for _, k := range l.keys {
			locked[k] = true
		}
	}
	return locked
}

// CompleteFeedback removes a batch.
//
// Errors: ErrMessageLockLost.
func (s *Server) CompleteFeedback(lockToken string) error {
	f := &s.feedbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocks(s.Now())
	l, ok := f.locks[lockToken]
	if !ok {
		return ErrMessageLockLost
	}
	err := s.store.Update(disk.Feedback, func(tx *store.Tx) error {
		for _, k := range l.keys {
			tx.Delete([]byte(k))
		}
		return nil
	})
	if err == nil {
		delete(f.locks, lockToken)
	}
	return err
}

// AbandonFeedback gives a batch back at once.
//
// Errors: ErrMessageLockLost.
func (s *Server) AbandonFeedback(lockToken string) error {
	f := &s.feedbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocks(s.Now())
	if _, ok := f.locks[lockToken]; !ok {
		return ErrMessageLockLost
	}
	delete(f.locks, lockToken)
	f.last = time.Time{} // whoever asks next gets it
	return nil
}

// dropFeedback removes feedback that nobody has asked for in time.
func (s *Server) dropFeedback(now time.Time) error {
	var old [][]byte
	err := s.store.Scan([]byte(disk.Feedback), feedbackKey(now.Add(-feedbackTTL), 0), func(k, _ []byte) error {
		old = append(old, slices.Clone(k))
		return nil
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return s.store.Update(disk.Feedback, func(tx *store.Tx) error {
		for _, k := range old {
			tx.Delete(k)
		}
		return nil
	})
}
