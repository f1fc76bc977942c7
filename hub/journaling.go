package hub

import (
	"errors"

	"github.com/iotdm/iotdm/hub/journal"
)

// What is taken down of a hub under test; see package journal. Each function here is called for nothing but that, and
// where there is no journal it only looks for one.

// Journal returns the journal, nil for a hub that is not under test.
func (s *Server) Journal() *journal.Journal { return s.journal }

// Note takes down an entry about id, which make makes.
func (s *Server) Note(id ID, on journal.Kind, what string, make func(*journal.Entry)) {
	if s.journal == nil {
		return
	}
	e := journal.Entry{On: on, What: what, Device: id.Device, Module: id.Module}
	if make != nil {
		make(&e)
	}
	s.journal.Add(e)
}

// noteError says in an entry why something was refused.
func noteError(e *journal.Entry, err error) {
	var refusal *Error
	if err == nil {
		return
	}
	if e.Reason = err.Error(); errors.As(err, &refusal) {
		e.Status = refusal.Status
	}
}

func noteProperties(list []Property) map[string]string {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]string, len(list))
	for _, p := range list {
		m[p.Name] = p.Value
	}
	return m
}

// noteConnection takes down that a connection was made, refused or ended.
func (s *Server) noteConnection(p Peer, what string, why error) {
	s.Note(p.ID, journal.Connection, what, func(e *journal.Entry) {
		e.Door = p.Door
		if why != nil {
			e.Reason = why.Error()
		}
	})
}

// NoteSubscription takes down that an identity begins or ends to receive what a topic filter or an address names.
func (s *Server) NoteSubscription(p Peer, what, name string) {
	s.Note(p.ID, journal.Subscription, what, func(e *journal.Entry) { e.Door, e.Name = p.Door, name })
}

// noteTelemetry takes down a message now, and returns what adds it to the journal when it is known what became of it.
func (s *Server) noteTelemetry(from Peer, m Telemetry) func(error) {
	e := journal.Entry{
		On: journal.Telemetry, What: journal.Received, Device: from.ID.Device, Module: from.ID.Module, Door: from.Door,
		System: noteProperties(m.System), Properties: noteProperties(m.Properties), Body: journal.NewBody(m.Body),
	}
	e.MessageID = e.System["message-id"]
	return func(err error) {
		if err != nil {
			e.What = journal.Refused
			noteError(&e, err)
		}
		s.journal.Add(e)
	}
}

// noteTwin takes down that an identity got its twin, or patched it.
func (s *Server) noteTwin(id ID, what string, patch []byte, err error) {
	if s.journal == nil {
		return
	}
	e := journal.Entry{On: journal.Twin, What: what, Device: id.Device, Module: id.Module, Status: 200, Body: journal.NewBody(patch)}
	if what == journal.Reported {
		e.Status = 204
	}
	if err != nil {
		e.Status = 0
		noteError(&e, err)
	}
	if l := s.Link(id); l != nil {
		e.Door = l.Peer().Door
	}
	s.journal.Add(e)
}

// noteMessage takes down what became of a cloud-to-device message.
func (s *Server) noteMessage(device, what string, m *Message) {
	s.Note(ID{Device: device}, journal.Message, what, func(e *journal.Entry) {
		e.MessageID, e.Properties, e.Body = m.MessageID, noteProperties(m.Properties), journal.NewBody(m.Body)
	})
}

// journaled is the journal's word for the end of a message.
func journaled(o outcome) string {
	switch o {
	case completed:
		return journal.Completed
	case rejected:
		return journal.Rejected
	}
	return journal.Dropped
}

// noteCall takes down that a direct method is called.
func (s *Server) noteCall(id ID, call MethodCall) {
	s.Note(id, journal.Method, journal.Called, func(e *journal.Entry) { e.Name, e.Body = call.Name, journal.NewBody(call.Payload) })
}

// noteAnswer takes down what came of it.
func (s *Server) noteAnswer(id ID, call MethodCall, r MethodResult, err error) {
	s.Note(id, journal.Method, journal.Answered, func(e *journal.Entry) {
		e.Name, e.Status, e.Body = call.Name, int(r.Status), journal.NewBody(r.Payload)
		noteError(e, err)
	})
}
