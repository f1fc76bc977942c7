package natsevents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/iotdm/iotdm/internal/wait"
)

// A request asks for messages of the stream: that at Seq, or the next one of a
// subject from there on; from a time on; the last one of a subject. The client
// library asks for one at a time, and never only the server that orders the
// stream, which alone knows its end.
type request struct {
	Seq       uint64     `json:"seq,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
}

// A message is one of the stream.
type message struct {
	seq       uint64
	partition int
	at        time.Time
	header    nats.Header
	data      []byte
}

// errNone means that there is no such message.
var errNone = errors.New("no message found")

const apiPrefix = "$JS.API."

// leader asks the server that orders the stream, again and again until it answers
// or ctx ends.
func (l *Log) leader(ctx context.Context, subject string, question, answer any) error {
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	last := errors.New("no server that orders the stream answers")
	for {
		once, cancel := context.WithTimeout(ctx, attempt)
		var m *nats.Msg
		m, err = l.conn.RequestWithContext(once, apiPrefix+subject, text)
		cancel()
		if err == nil {
			var refusal struct {
				Error *jetstream.APIError `json:"error"`
			}
			if err = json.Unmarshal(m.Data, &refusal); err == nil && refusal.Error == nil {
				return json.Unmarshal(m.Data, answer)
			}
			if err == nil {
				err = refusal.Error
				switch refusal.Error.ErrorCode {
				case jetstream.JSErrCodeMessageNotFound:
					return errNone
				case jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeBadRequest:
					return fmt.Errorf("stream %s: %w", stream, err)
				}
			}
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
			last = err
		}
		if wait.For(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("stream %s: %w", stream, last)
		}
	}
}

// state asks for the bounds of the stream.
func (l *Log) state(ctx context.Context) (jetstream.StreamState, error) {
	var info struct {
		State jetstream.StreamState `json:"state"`
	}
	err := l.leader(ctx, "STREAM.INFO."+stream, struct{}{}, &info)
	return info.State, err
}

// end returns the last message that the stream has had.
func (l *Log) end(ctx context.Context) (uint64, error) {
	bounded, stop := l.within(ctx, unreachable)
	defer stop()
	state, err := l.state(bounded)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return state.LastSeq, l.closedOr(err)
}

// leaderGet asks for one message.
//
// Errors: errNone, if there is none.
func (l *Log) leaderGet(ctx context.Context, q request) (message, error) {
	bounded, stop := l.within(ctx, unreachable)
	defer stop()
	var a struct {
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := l.leader(bounded, "STREAM.MSG.GET."+stream, q, &a); err != nil {
		if ctx.Err() != nil {
			return message{}, ctx.Err()
		}
		return message{}, l.closedOr(err)
	}
	header, err := nats.DecodeHeadersMsg(a.Message.Header)
	if err != nil {
		header = nats.Header{}
	}
	return message{a.Message.Seq, partitionOf(a.Message.Subject), time.Unix(0, a.Message.Time.UnixNano()), header, a.Message.Data}, nil
}

// partitionOf returns the partition of a message, -1 if it has none.
func partitionOf(subject string) int {
	rest, ok := strings.CutPrefix(subject, subjectPrefix)
	text, _, more := strings.Cut(rest, ".")
	partition, err := strconv.Atoi(text)
	if !ok || !more || err != nil {
		return -1
	}
	return partition
}

// A fetcher asks any server for many messages at a time.
type fetcher struct {
	log    *Log
	inbox  string
	sub    *nats.Subscription
	number int
}

// What is asked for at a time.
const (
	fetchMessages = 256
	fetchBytes    = 1 << 20
)

// fetchPatience is how long a server may take for the next message of an answer.
const fetchPatience = time.Second

func (l *Log) newFetcher() (*fetcher, error) {
	f := &fetcher{log: l, inbox: l.conn.NewInbox()}
	var err error
	f.sub, err = l.conn.SubscribeSync(f.inbox + ".*")
	return f, err
}

func (f *fetcher) close() { _ = f.sub.Unsubscribe() }

// fetch calls fn with messages of a subject from seq on, in order and without
// gaps. Not all that there are come at once.
//
// Errors: errNone, if the server that was asked has none. After other errors
// those that came are in order all the same.
func (f *fetcher) fetch(ctx context.Context, seq uint64, filter string, fn func(message) error) error {
	f.number++
	reply := fmt.Sprint(f.inbox, ".", f.number)
	question, err := json.Marshal(request{Seq: seq, NextFor: filter, Batch: fetchMessages, MaxBytes: fetchBytes})
	if err != nil {
		return err
	}
	if err := f.log.conn.PublishRequest(apiPrefix+"DIRECT.GET."+stream, reply, question); err != nil {
		return err
	}
	var before uint64
	for {
		once, cancel := context.WithTimeout(ctx, fetchPatience)
		m, err := f.sub.NextMsgWithContext(once)
		cancel()
		switch {
		case err != nil:
			return err
		case m.Subject != reply:
			continue // of a fetch that was given up
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204":
			return nil
		case "404":
			return errNone
		default:
			return fmt.Errorf("status %s: %s", status, m.Header.Get("Description"))
		}
		got, behind, err := parse(m)
		if err != nil {
			return err
		}
		if behind != before {
			return errors.New("a message was lost on the way")
		}
		before = got.seq
		if err := fn(got); err != nil {
			return err
		}
	}
}

// parse reads a message as a server sends it, which also says behind which one it
// comes in the answer.
func parse(m *nats.Msg) (got message, behind uint64, err error) {
	seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return got, 0, fmt.Errorf("a message without its place: %w", err)
	}
	if behind, err = strconv.ParseUint(m.Header.Get(jetstream.LastSequenceHeader), 10, 64); err != nil {
		return got, 0, fmt.Errorf("message %d: %w", seq, err)
	}
	at, err := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	if err != nil {
		return got, 0, fmt.Errorf("message %d: %w", seq, err)
	}
	return message{seq, partitionOf(m.Header.Get(jetstream.SubjectHeader)), time.Unix(0, at.UnixNano()), m.Header, m.Data}, behind, nil
}
