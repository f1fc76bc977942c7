package hub

import "github.com/iotdm/iotdm/hub/fault"

// A fate is what a fault makes of the delivery of a cloud-to-device message.
type fate int

const (
	comes fate = iota
	late       // it comes later, and what is behind it behind it
	lost       // on the way: it comes again when its lock has ended
)

// A heldMessage is one that a fault keeps back.
type heldMessage struct {
	sequence uint64
	due      bool
}

// fateOf decides on a message that is the next one to be delivered.
func (s *Server) fateOf(device string, sequence uint64) fate {
	if s.faults == nil {
		return comes
	}
	switch held, ok := s.queues.release(device); {
	case ok && !held.due:
		return late
	case ok && held.sequence == sequence:
		return comes
	}
	switch f := s.strike(fault.Message, ID{Device: device}, nil); {
	case f == nil:
		return comes
	case f.Drop:
		return lost
	default:
		s.queues.hold(device, sequence)
		s.AfterDelay(f.Latency, func() {
			s.queues.endHold(device, sequence)
			s.deliver(device)
		})
		return late
	}
}

// sendingFault returns what a service is answered that sends a message to a device, nil for nothing special.
func (s *Server) sendingFault(device string) error {
	if s.faults == nil {
		return nil
	}
	t := s.target(ID{Device: device}, nil)
	t.Sending = true
	if f := s.strikeTarget(fault.Message, t); f != nil {
		return f.Refusal
	}
	return nil
}

// hold keeps back the messages of a device from this one on.
func (q *queues) hold(device string, sequence uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.heldBack[device] = heldMessage{sequence: sequence}
}

func (q *queues) endHold(device string, sequence uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.heldBack[device].sequence == sequence {
		q.heldBack[device] = heldMessage{sequence: sequence, due: true}
	}
}

// release returns the message that is kept back, and forgets it if it is due.
func (q *queues) release(device string) (held heldMessage, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if held, ok = q.heldBack[device]; held.due {
		delete(q.heldBack, device)
	}
	return held, ok
}
