package hub

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/eventlog"
	"github.com/iotdm/iotdm/hub/store"
)

// open returns a server with its state in the folder dir, or in memory if that
// is empty, and what closes it.
func open(t testing.TB, dir string, c *clock.Clock) (s *Server, end func()) {
	t.Helper()
	var db *store.DB
	var events *eventlog.Log
	var err, eventErr error
	if dir == "" {
		db, err = store.OpenMemory(nil)
		events, eventErr = eventlog.OpenMemory(eventlog.Options{Now: c.Now})
	} else {
		db, err = store.Open(filepath.Join(dir, "store"), nil)
		events, eventErr = eventlog.Open(filepath.Join(dir, "events"), eventlog.Options{Now: c.Now})
	}
	if err := errors.Join(err, eventErr); err != nil {
		t.Fatal(err)
	}
	if s, err = New(Options{Store: db, Events: events, Clock: c}); err != nil {
		t.Fatal(err)
	}
	return s, func() {
		s.Close()
		if err := errors.Join(events.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// A quietLink is one whose peer was heard of once.
type quietLink struct {
	Link // nothing is asked of it but what follows
	id   ID
	last time.Time
}

func (l *quietLink) Peer() Peer              { return Peer{ID: l.id} }
func (l *quietLink) LastActivity() time.Time { return l.last }
func (l *quietLink) End(error)               {}
