package outbox

import (
	"errors"
	"fmt"
	"os"
)

// run commits one batch after the other until the outbox is closed.
func (b *Box) run() {
	defer close(b.done)
	for {
		b.mu.Lock()
		for b.next.count == 0 && !b.closed {
			b.work.Wait()
		}
		batch := b.next
		if batch.count == 0 {
			b.mu.Unlock()
			return
		}
		b.next = newBatch()
		b.room.Broadcast()
		b.mu.Unlock()

		if err := b.commit(batch); err != nil {
			batch.err = fmt.Errorf("outbox %s: %w", b.dir, plain(err))
		}
		close(batch.done)
	}
}

// commit makes a batch durable. After an error its messages are not part of
// the outbox, and the next commit starts a new segment: what a failed write or
// fsync left of the file is not known, and ends where the new one begins.
func (b *Box) commit(batch *batch) error {
	b.makeRoom(int64(len(batch.buf)))
	if err := b.roll(); err != nil {
		return err
	}
	b.mu.Lock()
	size, end := b.segments[len(b.segments)-1].size, b.end
	b.mu.Unlock()
	seal(batch.buf, end)
	_, err := b.active.WriteAt(batch.buf, size)
	if err == nil {
		err = b.sync(b.active)
	}
	if err != nil {
		_ = b.active.Truncate(size) // so that it does not come back; err is the one to tell
		b.closeActive()
		b.mu.Lock()
		b.broken = true
		b.mu.Unlock()
		return err
	}
	b.mu.Lock()
	b.segments[len(b.segments)-1].size += int64(len(batch.buf))
	b.end += batch.count
	b.wake()
	b.mu.Unlock()
	return nil
}

// roll makes sure that there is an active segment with room.
func (b *Box) roll() error {
	b.mu.Lock()
	last := len(b.segments) - 1
	full := last >= 0 && b.segments[last].size >= b.segmentBytes
	empty := last >= 0 && b.segments[last].base == b.end
	base := b.end
	if b.active != nil && !full {
		b.mu.Unlock()
		return nil
	}
	if empty { // the new one has its name
		b.segments = b.segments[:last]
	}
	b.mu.Unlock()
	b.closeActive()
	f, err := os.OpenFile(b.path(base), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	if err := syncFolder(b.dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	b.active = f
	b.mu.Lock()
	b.segments = append(b.segments, segment{base: base})
	b.broken = false
	b.mu.Unlock()
	return nil
}

func (b *Box) closeActive() {
	if b.active != nil {
		_ = b.active.Close() // what counts is synced
		b.active = nil
	}
}

// makeRoom drops the oldest segments until n more bytes fit. That they are
// dropped is durable before they are removed.
func (b *Box) makeRoom(n int64) {
	b.mu.Lock()
	if b.bytes()+n <= b.maxBytes || len(b.segments) < 2 {
		b.mu.Unlock()
		return
	}
	var gone []segment
	before := b.dropped
	for b.bytes()+n > b.maxBytes && len(b.segments) > 1 {
		if next := b.segments[1].base; next > b.first {
			b.dropped += next - b.first
			b.first = next
		}
		gone = append(gone, b.segments[0])
		b.segments = b.segments[1:]
	}
	total := b.dropped
	b.mu.Unlock()
	if err := b.storeState(true); err != nil {
		b.logger.Warn("the outbox could not store what it dropped", logOutbox, b.dir, logError, err)
	}
	b.remove(gone)
	if total > before {
		b.logger.Warn("the outbox is full; the oldest messages were dropped", logOutbox, b.dir, logDropped, total-before, logTotal, total)
		b.onDropped(total)
	}
}

// acknowledged notes that n messages were sent, and that all before upTo are
// done with.
func (b *Box) acknowledged(upTo, n uint64) {
	b.mu.Lock()
	b.sent += n
	b.first = max(b.first, upTo)
	for len(b.holes) > 0 && b.holes[0].first <= b.first {
		b.first = max(b.first, b.holes[0].end)
		b.holes = b.holes[1:]
	}
	var gone []segment
	for len(b.segments) > 1 && b.segments[1].base <= b.first {
		gone = append(gone, b.segments[0])
		b.segments = b.segments[1:]
	}
	if b.broken && len(b.segments) == 1 && b.first == b.end {
		gone = append(gone, b.segments[0]) // gives a full disk all its space back
		b.segments = nil
	}
	b.mu.Unlock()
	// The position need not be durable: after a power cut some messages are
	// sent again. A removal would then look like a loss, though.
	if err := b.storeState(len(gone) > 0); err != nil {
		b.logger.Warn("the outbox could not store what was sent; a restart may send it again", logOutbox, b.dir, logError, err)
	}
	b.remove(gone)
}

// remove removes segments. A file that cannot be removed now is found again
// when the outbox is opened.
func (b *Box) remove(gone []segment) {
	for _, s := range gone {
		if err := os.Remove(b.path(s.base)); err != nil {
			b.logger.Debug("removing a segment of the outbox", logOutbox, b.dir, logError, err)
		}
	}
}

// bytes is the size of all segments. The caller holds b.mu.
func (b *Box) bytes() int64 {
	var total int64
	for _, s := range b.segments {
		total += s.size
	}
	return total
}
