package hub

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/journal"
)

// Of several nodes one is the home of a device: it knows in memory what messages
// the device has in hand. That is the node with its link, else the leader, for
// devices that ask over HTTPS. When the home of a device moves, or dies, what the
// device had in hand is visible again.

// home returns the node that is the home of a device.
func (s *Server) home(device string) (epoch uint64) {
	if s.peers == nil {
		return 0
	}
	if node, ok := s.holder(ID{Device: device}); ok {
		return node
	}
	return s.peers.Leader()
}

// homeIn reports whether this node is the home of a device, as a Tx of the device
// reads it. Links change in the turn of their device, so that it is still so when
// the Tx becomes durable.
func (s *Server) homeIn(get func([]byte) ([]byte, error), device string) (bool, error) {
	if s.peers == nil {
		return true, nil
	}
	node, err := s.holderIn(get, ID{Device: device})
	if node == 0 {
		return s.Leads(), err
	}
	return node == s.Epoch(), err
}

// lockToken returns a new GUID. Of several nodes it ends with the epoch of the one
// that makes it, which is asked when the message is settled.
func (s *Server) lockToken() string {
	id := words.NewRequestID()
	if epoch := s.Epoch(); epoch != 0 {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], epoch)
		copy(id[10:], b[2:]) // a log has no more than 1<<48 positions
	}
	return id.String()
}

// lockedAt returns the epoch of the node that made a token, 0 if none did.
func lockedAt(token string) uint64 {
	id, err := hex.DecodeString(strings.ReplaceAll(token, "-", ""))
	if err != nil || len(id) != len(words.RequestID{}) {
		return 0
	}
	var b [8]byte
	copy(b[2:], id[10:])
	return binary.BigEndian.Uint64(b[:])
}

// What other nodes are asked of messages.
const (
	verbReceive = "message.receive"
	verbSettle  = "message.settle"
)

// answerPatience bounds how long another node takes.
const answerPatience = 20 * time.Second

// A reception is a question for a message.
type reception struct {
	Device string
	Lock   time.Duration
}

// A settlement is what becomes of a message that a device has in hand.
type settlement struct {
	Device, Token string
	Outcome       outcome
}

// answerMessages answers what other nodes ask of messages.
func (s *Server) answerMessages() {
	Answer(s, verbReceive, s.receive)
	Answer(s, verbSettle, func(_ context.Context, q settlement) (struct{}, error) { return struct{}{}, s.settleHere(q) })
}

// receiveAtHome has the home of a device give it a message, nil if there is none.
func (s *Server) receiveAtHome(device string, lock time.Duration) (*ReceivedMessage, error) {
	q := reception{device, lock}
	if s.peers == nil {
		return s.receive(s.ctx, q)
	}
	ctx, end := context.WithTimeout(s.ctx, answerPatience)
	defer end()
	return askWhere(ctx, s, func() uint64 { return s.home(device) }, verbReceive, q, s.receive)
}

// receive gives a device a message that waits here.
//
// Errors: ErrNoPeer if this node is not its home.
func (s *Server) receive(ctx context.Context, q reception) (*ReceivedMessage, error) {
	if err := s.store.Barrier(ctx); err != nil {
		return nil, err
	}
	switch home, err := s.homeIn(s.store.Get, q.Device); {
	case err != nil:
		return nil, err
	case !home:
		return nil, ErrNoPeer
	}
	m, ok, err := s.lockMessage(q.Device, s.Now().Add(q.Lock), nil)
	if !ok {
		return nil, err
	}
	s.noteMessage(q.Device, journal.Delivered, &m.Message)
	return &m, nil
}

// settle has a message settled where it was locked.
func (s *Server) settle(q settlement) error {
	node := lockedAt(q.Token)
	if s.peers == nil || node == s.Epoch() {
		return s.settleHere(q)
	}
	ctx, end := context.WithTimeout(s.ctx, answerPatience)
	defer end()
	if !s.Alive(node) {
		return ErrMessageLockLost
	}
	_, err := Ask[settlement, struct{}](ctx, s, node, verbSettle, q)
	if errors.Is(err, ErrNoPeer) && !s.Alive(node) {
		return ErrMessageLockLost
	}
	return unavailable(err)
}

func (s *Server) settleHere(q settlement) error {
	defer s.deliver(q.Device)
	return s.settleMessage(q.Device, q.Token, q.Outcome)
}
