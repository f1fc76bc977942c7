package eventlog

import "time"

// Stats are what an operator watches of a log. Counts are since it was opened.
type Stats struct {
	Bytes    int64 // on disk
	Segments int
	Waiting  int // bytes that wait for the fsync under way
	Records  uint64
	Failed   uint64 // batches that could not be written
	Damaged  uint64 // times that a reader met damage and skipped something
}

// Stats returns what the log is like.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stats
	s.Segments, s.Waiting = len(l.segments), len(l.next.buf)
	for _, segment := range l.segments {
		s.Bytes += headerSize(l.partitions) + segment.size
	}
	return s
}

// count changes the counts.
func (l *Log) count(change func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.stats)
}

// OnSync has fn called with how long each fsync of records took. fn must not
// wait. It is set before anything is appended.
func (l *Log) OnSync(fn func(time.Duration)) { l.onSync = fn }
