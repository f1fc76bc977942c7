package hub

import (
	"context"
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
	LockToken string    // settles it
	Until     time.Time // when the lock ends
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

	bell bell
}

// A bell wakes who waits for feedback. It has a lock of its own, since mu is
// held during writes, and rung when they are done.
type bell struct {
	mu     sync.Mutex    // guards what follows; may be taken under feedbacks.mu
	stored uint64        // records that have become durable, ever
	back   uint64        // batches that were given back, ever
	rung   chan struct{} // closed by the next ring; nil if nobody waits
}

// ring says that so much was added to what the bell counts.
func (b *bell) ring(stored, back uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stored += stored
	b.back += back
	if b.rung != nil {
		close(b.rung)
		b.rung = nil
	}
}

// listen returns the counts, and a channel that is closed when they change.
func (b *bell) listen() (stored, back uint64, rung <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rung == nil {
		b.rung = make(chan struct{})
	}
	return b.stored, b.back, b.rung
}

type feedbackLocked struct {
	keys  []string
	until time.Time
}

// forget forgets what was handed out, and has who waits look again.
func (f *feedbacks) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.locks)
	f.last = time.Time{}
	f.bell.ring(0, 1)
}

func (s *Server) addFeedback(tx *store.Tx, now time.Time, f Feedback) {
	s.feedbacks.mu.Lock()
	s.feedbacks.number++
	number := s.feedbacks.number
	s.feedbacks.mu.Unlock()
	f.EnqueuedTime = f.EnqueuedTime.UTC().Truncate(100 * time.Nanosecond) // as every time of the service
	tx.Set(feedbackKey(now, number), words.MustMarshal(f))
}

// feedbackChanged hears of feedback, whichever node has stored it.
func (s *Server) feedbackChanged(c store.Change) {
	if c.Value != nil {
		s.feedbacks.bell.ring(1, 0)
	}
}

func feedbackKey(t time.Time, number uint32) []byte { return disk.FeedbackKey(t.UnixNano(), number) }

// ReceiveFeedback returns up to 64 records of feedback, the oldest first, and
// locks them for a minute. As on the service they come in batches: it is not ok
// while there are fewer than 64 and the last batch is less than 15 seconds old.
// Feedback of deleted devices and such that is older than an hour is dropped.
//
// Errors: ErrServiceUnavailable if another node does not answer.
func (s *Server) ReceiveFeedback() (batch FeedbackBatch, ok bool, err error) {
	batch, err = atLeader(s, verbReceiveFeedback, struct{}{}, func(context.Context, struct{}) (FeedbackBatch, error) { return s.takeFeedback() })
	return batch, batch.LockToken != "", err
}

func (s *Server) takeFeedback() (batch FeedbackBatch, err error) {
	f := &s.feedbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	batch, _, err = s.receiveFeedback(s.Now())
	return batch, err
}

// NextFeedback waits until ReceiveFeedback has a batch and returns that. Several
// may wait; each batch goes to one of them.
//
// Errors: that of ctx.
func (s *Server) NextFeedback(ctx context.Context) (FeedbackBatch, error) {
	if s.Leads() {
		return s.nextFeedback(ctx)
	}
	return s.nextFeedbackElsewhere(ctx)
}

func (s *Server) nextFeedback(ctx context.Context) (FeedbackBatch, error) {
	for {
		stored, back, rung := s.feedbacks.bell.listen()
		moved := s.clock.Moved() // before the look: a move after it is not missed
		batch, need, wait, err := s.tryFeedback()
		if err != nil || batch.LockToken != "" {
			return batch, err
		}
		timer := s.clock.NewTimer(wait)
		for due := false; !due; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return FeedbackBatch{}, ctx.Err()
			case <-timer.C:
				due = true
			case <-moved:
				due = true
			case <-rung:
				var moreStored, moreBack uint64
				moreStored, moreBack, rung = s.feedbacks.bell.listen()
				due = moreStored-stored >= uint64(need) || moreBack != back
			}
		}
		timer.Stop()
	}
}

// tryFeedback is ReceiveFeedback that says what a batch needs if there is none:
// so many more records, or to wait so long.
func (s *Server) tryFeedback() (batch FeedbackBatch, need int, wait time.Duration, err error) {
	f := &s.feedbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	now := s.Now()
	batch, waiting, err := s.receiveFeedback(now)
	need, wait = feedbackBatch-waiting, feedbackInterval-now.Sub(f.last)
	if wait <= 0 { // nothing waits
		need, wait = 1, feedbackTTL
	}
	for _, l := range f.locks {
		wait = min(wait, l.until.Sub(now))
	}
	return batch, need, wait, err
}

// receiveFeedback is ReceiveFeedback for a caller that holds f.mu. A batch that
// has no lock token is none, and waiting says how many records there are.
func (s *Server) receiveFeedback(now time.Time) (batch FeedbackBatch, waiting int, err error) {
	f := &s.feedbacks
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
		return FeedbackBatch{}, len(keys), err
	}
	f.last = now
	batch.LockToken, batch.Until = words.NewRequestID().String(), now.Add(feedbackLock)
	if f.locks == nil {
		f.locks = make(map[string]feedbackLocked)
	}
	f.locks[batch.LockToken] = feedbackLocked{keys, batch.Until}
	return batch, 0, nil
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
// Errors: ErrMessageLockLost, ErrServiceUnavailable if another node does not answer.
func (s *Server) CompleteFeedback(lockToken string) error {
	return s.settleFeedback(verbCompleteFeedback, lockToken, s.completeFeedback)
}

func (s *Server) completeFeedback(lockToken string) error {
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
// The errors are those of CompleteFeedback.
func (s *Server) AbandonFeedback(lockToken string) error {
	return s.settleFeedback(verbAbandonFeedback, lockToken, s.abandonFeedback)
}

func (s *Server) abandonFeedback(lockToken string) error {
	f := &s.feedbacks
	f.mu.Lock()
	defer f.mu.Unlock()
	f.endLocks(s.Now())
	if _, ok := f.locks[lockToken]; !ok {
		return ErrMessageLockLost
	}
	delete(f.locks, lockToken)
	f.last = time.Time{} // whoever asks next gets it
	f.bell.ring(0, 1)
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
