package engine

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// Options are the bounds of a connection. Zero values are defaults.
type Options struct {
	Container   string        // the hub's container id
	IdleTimeout time.Duration // announced to the peer: 4 minutes. It may be silent for twice as long
	MaxFrame    uint32        // announced: 65536
	MaxSessions int           // at one time: 1100
	MaxLinks    int           // of a connection at one time: 8200
	Queued      func(n int)   // told of bytes that wait to be written, more or fewer, if not nil; it calls nothing of the engine

	// Now is the clock of LastActivity: time.Now.
	Now func() time.Time
}

const (
	// channelMax is what the hub announces. How many sessions there are at one
	// time is bounded by MaxSessions, whatever their numbers.
	channelMax = 8191

	// maxSASLFrame bounds frames of the handshake. The specification has 512
	// bytes, in which a SAS token may find no room.
	maxSASLFrame = 8 << 10

	// No frame may be smaller than minFrame, by the specification.
	minFrame = 512

	// A peer that wants to hear from the hub more often than every
	// minIdleTimeout is refused.
	minIdleTimeout = time.Second

	openTimeout  = 30 * time.Second // from Serve to the peer's open
	closeTimeout = 5 * time.Second  // from the hub's close to the peer's
)

// A Conn is one connection.
type Conn struct {
	net net.Conn
	opt Options

	// Of the goroutine that reads.
	in      frameBuffer
	handler Handler
	arrived time.Time // when the last bytes came
	heard   time.Time // when the last frame did
	hits    []sent    // of a disposition
	readBy  time.Time // the deadline that is set

	active  atomic.Int64   // Unix nanoseconds of the last frame
	running sync.WaitGroup // goroutines that write, or tell of a Detach

	mu        sync.Mutex // guards what follows, and sessions and links; never held over I/O or calls
	state     state
	reason    error     // why it ends; set once, when that begins
	opened    bool      // the hub's open is queued
	awake     bool      // the goroutine that reads will flush
	writing   bool      // somebody is writing
	out       [][]byte  // whole frames that wait to be written
	queued    int       // bytes that wait, here, in sessions and in links, or are being written
	inFlight  int       // of these are being written
	written   written   // the last disposition in out
	starved   []*Link   // that wait for room
	capped    []*Link   // that wait for fewer deliveries to be unsettled
	sentAt    time.Time // when something was written last
	writeBy   time.Time // the deadline that is set
	peerFrame int       // the largest frame for the peer
	peerMax   uint16    // the largest channel for the peer
	beatEvery time.Duration
	beats     *time.Timer // nil if the peer wants no heartbeat
	closing   *time.Timer // set by the hub's close
	sessions  map[uint16]*session
	names     map[linkName]*Link
	links     int // in all sessions
	weight    int // of links
	assembled int // bytes of deliveries that are not complete
	unsettled int // deliveries that were sent and whose ref is kept

	transfer wire.Transfer // of the frame that is being queued
	id       uint32
	format   uint32
	settled  bool
	tag      [4]byte
}

// A state is that of a connection or a link.
type state uint8

const (
	starting state = iota // the peer's open is awaited, or what the handler says to its attach
	open
	closing // close or detach has been sent, and the peer's is awaited
	ended
)

// A linkName is what is unique on a connection.
type linkName struct {
	name string
	role wire.Role
}

// Reasons that are of use here alone.
var (
	errClosed   = errors.New("the hub closed the connection") // Serve returns nil
	errDone     = errors.New("the peer has answered close")
	errNoAnswer = errors.New("the peer did not answer close")
)

// New returns the connection on nc. Nothing is read or written before Header.
func New(nc net.Conn, opt Options) *Conn {
	opt.IdleTimeout = cmp.Or(opt.IdleTimeout, 4*time.Minute)
	opt.MaxFrame = max(cmp.Or(opt.MaxFrame, 64<<10), minFrame)
	opt.MaxSessions = cmp.Or(opt.MaxSessions, 1100)
	opt.MaxLinks = cmp.Or(opt.MaxLinks, 8200)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	c := &Conn{net: nc, opt: opt, peerFrame: minFrame}
	c.active.Store(opt.Now().UnixNano())
	return c
}

// Header reads the protocol header of 8 bytes that comes next. Deadlines of the
// handshake are the caller's.
func (c *Conn) Header() (string, error) {
	for {
		if b := c.in.take(8); b != nil {
			return string(b), nil
		}
		if err := c.in.fill(c.net, maxSASLFrame); err != nil {
			return "", lost(err)
		}
	}
}

// Write writes bytes during the handshake, before Serve, and waits for it.
func (c *Conn) Write(b []byte) error {
	_, err := c.net.Write(b)
	return err
}

// SASLFrame reads a SASL frame of at most 8 KiB. It is valid until the next is
// read. Errors that are not of the network are *wire.Error.
func (c *Conn) SASLFrame() (wire.Frame, error) {
	for {
		b, err := c.in.frame(maxSASLFrame)
		if err != nil {
			return wire.Frame{}, framingError(err)
		}
		if b != nil {
			f, err := wire.DecodeFrame(b)
			if err != nil {
				return wire.Frame{}, decodeError(err)
			}
			if !f.SASL {
				return wire.Frame{}, framingError(errors.New("no SASL frame where one is due"))
			}
			return f, nil
		}
		if err := c.in.fill(c.net, maxSASLFrame); err != nil {
			return wire.Frame{}, lost(err)
		}
	}
}

// lost makes ErrLost of an error of the network, with what is more than that the
// peer has gone.
func lost(err error) error {
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, gone) {
			return ErrLost
		}
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// Serve reads frames and calls h, until the connection ends, and returns why:
// nil after Close without an error. The peer's header has been read and
// answered. It closes the net.Conn; every Inlet and Outlet has been told
// Detached when it returns, and no goroutine is left.
func (c *Conn) Serve(h Handler) error {
	c.mu.Lock()
	c.handler = h
	c.awake = true
	c.mu.Unlock()
	c.arrived = time.Now()
	c.heard = c.arrived
	return c.finish(c.read())
}

// read reads frames until the connection ends.
func (c *Conn) read() error {
	for {
		b, err := c.in.frame(int(c.opt.MaxFrame))
		if err != nil {
			c.Close(framingError(err))
			return c.drain()
		}
		if b != nil {
			if err := c.take(b); err != nil {
				return err
			}
			continue
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// take handles one frame.
func (c *Conn) take(b []byte) error {
	if c.heard != c.arrived {
		c.heard = c.arrived
		c.active.Store(c.opt.Now().UnixNano())
	}
	err := c.handle(b)
	if e := (*wire.Error)(nil); errors.As(err, &e) {
		c.Close(e)
		err = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && c.state == ended {
		err = c.reason
	}
	if c.queued >= bufferSize {
		c.startWritingLocked()
	}
	return err
}

// fill writes what was answered, and waits for more to read.
func (c *Conn) fill() error {
	c.mu.Lock()
	c.awake = false
	c.mu.Unlock()
	c.flush()
	deadline, silent := c.heard.Add(2*c.opt.IdleTimeout), ErrSilent
	c.mu.Lock()
	if c.state == starting {
		deadline = c.heard.Add(openTimeout)
	}
	c.mu.Unlock()
	deadline = soon(deadline, 0)
	if err := c.readUntil(deadline); err != nil {
		return err
	}
	if err := c.in.fill(c.net, int(c.opt.MaxFrame)); err != nil {
		if !time.Now().Before(deadline) {
			return silent
		}
		return lost(err)
	}
	c.arrived = time.Now()
	c.mu.Lock()
	c.awake = true
	c.mu.Unlock()
	return nil
}

// readUntil sets a deadline for reading, unless the connection has to end.
func (c *Conn) readUntil(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == ended {
		return c.reason
	}
	if t.Equal(c.readBy) {
		return nil
	}
	c.readBy = t
	if err := c.net.SetReadDeadline(t); err != nil {
		return lost(err)
	}
	return nil
}

// drain reads what makes no sense any more, until the peer or the time that
// Close gives it ends that. So the peer gets to read why.
func (c *Conn) drain() error {
	for {
		c.in.discard()
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// handle handles one frame. A *wire.Error closes the connection in order, other
// errors end it.
func (c *Conn) handle(b []byte) error {
	f, err := wire.DecodeFrame(b)
	if err != nil {
		return decodeError(err)
	}
	if f.SASL {
		return framingError(errors.New("a SASL frame behind the handshake"))
	}
	c.mu.Lock()
	state, s := c.state, c.sessions[f.Channel]
	ending := s != nil && s.ending
	c.mu.Unlock()
	if f.Body == nil && state != starting {
		return nil
	}
	if body, ok := f.Body.(*wire.Close); ok {
		return c.closedByPeer(body)
	}
	switch state {
	case starting:
		body, ok := f.Body.(*wire.Open)
		if !ok {
			return illegalState("a frame before open")
		}
		return c.open(body)
	case closing, ended:
		return nil
	}
	switch body := f.Body.(type) {
	case *wire.Open:
		return illegalState("a second open")
	case *wire.Begin:
		return c.begin(f.Channel, s, body)
	}
	if s == nil {
		switch f.Body.(type) {
		case *wire.Detach, *wire.Disposition, *wire.End:
			return nil // there are clients that end a session and then its links
		}
		return illegalState("a frame on channel %d, which has no session", f.Channel)
	}
	if _, ok := f.Body.(*wire.End); !ok && ending {
		return nil
	}
	switch body := f.Body.(type) {
	case *wire.Attach:
		return s.attach(body)
	case *wire.Flow:
		return s.flow(body)
	case *wire.Transfer:
		return s.receive(body, f.Payload)
	case *wire.Disposition:
		return s.disposed(body)
	case *wire.Detach:
		return s.detachedByPeer(body)
	case *wire.End:
		return s.endedByPeer()
	}
	return framingError(errors.New("a frame without meaning"))
}

// open answers the peer's open.
func (c *Conn) open(o *wire.Open) error {
	if o.MaxFrameSize < minFrame {
		return invalidField("a max-frame-size of %d is too small", o.MaxFrameSize)
	}
	if 0 < o.IdleTimeout && o.IdleTimeout < minIdleTimeout {
		return invalidField("an idle-time-out of %v is too short", o.IdleTimeout)
	}
	if err := c.handler.Open(o); err != nil {
		return errorOf(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != starting {
		return nil
	}
	c.peerFrame = int(min(o.MaxFrameSize, 64<<10))
	c.peerMax = o.ChannelMax
	c.queueOpenLocked()
	if c.state == ended {
		return nil
	}
	c.state = open
	if o.IdleTimeout > 0 {
		c.beatEvery = o.IdleTimeout / 2
		c.sentAt = time.Now()
		c.beats = time.AfterFunc(c.beatEvery, c.beat)
	}
	return nil
}

func (c *Conn) queueOpenLocked() {
	c.opened = true
	c.queueLocked(0, &wire.Open{
		ContainerID:  c.opt.Container,
		MaxFrameSize: c.opt.MaxFrame,
		ChannelMax:   channelMax,
		IdleTimeout:  c.opt.IdleTimeout,
	})
}

// beat sends an empty frame if nothing else was sent for as long as the peer
// can stand.
func (c *Conn) beat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return
	}
	now := time.Now()
	wait := c.sentAt.Add(c.beatEvery).Sub(now)
	if wait <= 0 {
		wait = c.beatEvery
		if !c.writing {
			c.queueLocked(0, nil)
			c.startWritingLocked()
		}
	}
	c.beats.Reset(wait)
}

// Close ends the connection in order: it sends the end of each session and
// close, with the error if that is not nil, and ends when the peer has answered
// or a few seconds later. It does not wait. The first call counts. Before Serve
// it is End.
//
// Nothing needs the end of the sessions but Node's client: where a connection is
// closed around it, it waits 45 seconds for its links to be detached.
func (c *Conn) Close(e *wire.Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == closing || c.state == ended {
		return
	}
	reason := errClosed
	if e != nil {
		reason = e
	}
	if c.handler == nil {
		c.endLocked(reason)
		return
	}
	if !c.opened {
		c.queueOpenLocked()
	}
	for _, s := range c.sessions {
		s.queueLocked(&wire.End{Error: e})
	}
	c.queueLocked(0, &wire.Close{Error: e})
	if c.state == ended {
		return
	}
	c.startWritingLocked()
	c.closeLocked(reason)
	c.closing = time.AfterFunc(closeTimeout, func() { c.End(errNoAnswer) })
}

// closeLocked has nothing more sent but what is queued.
func (c *Conn) closeLocked(reason error) {
	c.state = closing
	c.reason = reason
	for _, s := range c.sessions {
		for _, l := range s.links {
			l.wakeLocked()
		}
	}
}

// closedByPeer answers the peer's close, or takes it as the answer.
func (c *Conn) closedByPeer(body *wire.Close) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.state {
	case ended:
		return nil
	case closing:
		return errDone
	}
	if !c.opened {
		c.queueOpenLocked()
	}
	c.queueLocked(0, &wire.Close{})
	reason := ErrClosed
	if body.Error != nil {
		// It is for the log, which a peer is not to fill.
		e := wire.Error{Condition: body.Error.Condition, Description: body.Error.Description}
		e.Condition, e.Description = e.Condition[:min(len(e.Condition), 100)], e.Description[:min(len(e.Description), 300)]
		reason = fmt.Errorf("%w: %w", ErrClosed, &e)
	}
	if c.state != ended {
		c.closeLocked(reason)
	}
	return errDone
}

// End drops the connection at once, for a reason that Serve returns. The first
// reason counts.
func (c *Conn) End(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(reason)
}

var longAgo = time.Unix(1, 0)

func (c *Conn) endLocked(reason error) {
	if c.state == ended {
		return
	}
	if c.state != closing {
		c.closeLocked(reason)
	}
	c.state = ended
	c.dropLocked()
	c.net.SetDeadline(longAgo)
}

// dropLocked forgets what is queued. What is being written is left to who does.
func (c *Conn) dropLocked() {
	for _, b := range c.out {
		freeBuffer(b)
	}
	for _, s := range c.sessions {
		s.dropLocked()
	}
	c.out, c.starved, c.capped, c.written.session = nil, nil, nil, nil
	c.recountLocked(c.inFlight - c.queued)
}

// finish ends the connection with all that hangs on it, and returns why it ended.
func (c *Conn) finish(err error) error {
	c.mu.Lock()
	if c.state == starting || c.state == open {
		c.closeLocked(err)
	}
	c.awake = false
	if c.beats != nil {
		c.beats.Stop()
	}
	if err == errDone && c.state == closing {
		if c.closing == nil {
			c.closing = time.AfterFunc(closeTimeout, func() { c.End(errNoAnswer) })
		}
		c.startWritingLocked()
		c.mu.Unlock()
		c.running.Wait() // the answer to close is the last thing written
		c.mu.Lock()
	}
	if c.closing != nil {
		c.closing.Stop()
	}
	if c.state != ended {
		c.state = ended
		c.dropLocked()
	}
	var links []*Link
	for _, s := range c.sessions {
		for _, l := range s.links {
			links = append(links, l)
		}
	}
	c.mu.Unlock()

	c.net.Close()
	c.running.Wait()
	for _, l := range links {
		l.tell()
	}
	c.in.release()
	if c.reason == errClosed {
		return nil
	}
	return c.reason
}

// LastActivity is when the last frame came, by Options.Now. It takes no lock.
func (c *Conn) LastActivity() time.Time { return time.Unix(0, c.active.Load()) }

// NetConn returns the connection that carries it.
func (c *Conn) NetConn() net.Conn { return c.net }

// Reason is why the connection ends, as Serve returns it; nil while it goes on.
// It is known before the Inlets and Outlets are told Detached for it.
func (c *Conn) Reason() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == errClosed {
		return nil
	}
	return c.reason
}
