package outbox

import "time"

// For package outbox_test.
const Window = window

var SyncData = syncData

// AwaitSent returns when n messages have been sent.
func (b *Box) AwaitSent(n uint64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.Stats().Sent < n {
		<-tick.C
	}
}
