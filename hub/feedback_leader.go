package hub

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
)

// Of several nodes the leader hands out feedback, wherever it is asked for.

// What the leader is asked of feedback.
const (
	verbReceiveFeedback  = "feedback.receive"
	verbNextFeedback     = "feedback.next"
	verbCompleteFeedback = "feedback.complete"
	verbAbandonFeedback  = "feedback.abandon"
)

// How long another node waits for feedback on behalf of this one, and this one
// after that has not answered.
const (
	feedbackRound = 20 * time.Second
	feedbackPause = time.Second
)

// answerFeedback answers what other nodes ask of this one while it leads. The keys
// of its own records begin at random, since others may have some of the same time.
func (s *Server) answerFeedback() {
	if s.peers == nil {
		return
	}
	s.feedbacks.number = rand.Uint32()
	settle := func(do func(string) error) func(context.Context, string) (struct{}, error) {
		return func(_ context.Context, token string) (struct{}, error) { return struct{}{}, do(token) }
	}
	AnswerAsLeader(s, verbReceiveFeedback, func(context.Context, struct{}) (FeedbackBatch, error) { return s.takeFeedback() })
	AnswerAsLeader(s, verbNextFeedback, s.feedbackWithin)
	AnswerAsLeader(s, verbCompleteFeedback, settle(s.completeFeedback))
	AnswerAsLeader(s, verbAbandonFeedback, settle(s.abandonFeedback))
}

// atLeader is AskLeader for what does not take long.
func atLeader[Q, A any](s *Server, verb string, q Q, local func(context.Context, Q) (A, error)) (A, error) {
	ctx, end := context.WithTimeout(s.ctx, answerPatience)
	defer end()
	return AskLeader(ctx, s, verb, q, local)
}

func (s *Server) settleFeedback(verb, token string, local func(string) error) error {
	_, err := atLeader(s, verb, token, func(_ context.Context, token string) (struct{}, error) { return struct{}{}, local(token) })
	return err
}

// feedbackWithin is nextFeedback that gives up after a while, with an empty batch.
func (s *Server) feedbackWithin(ctx context.Context, while time.Duration) (FeedbackBatch, error) {
	limited, end := context.WithTimeout(ctx, while)
	defer end()
	batch, err := s.nextFeedback(limited)
	if limited.Err() != nil && ctx.Err() == nil {
		err = nil
	}
	return batch, err
}

// nextFeedbackElsewhere is NextFeedback on a node that does not lead, or did not
// when it began.
func (s *Server) nextFeedbackElsewhere(ctx context.Context) (FeedbackBatch, error) {
	for {
		batch, err := s.awaitFeedback(ctx)
		switch {
		case batch.LockToken != "":
			return batch, nil
		case ctx.Err() != nil:
			return batch, ctx.Err()
		case s.ctx.Err() != nil:
			return batch, ErrServiceUnavailable.With("%v", ErrClosing)
		case err != nil: // the next leader will answer
			_ = wait.For(ctx, feedbackPause)
		}
	}
}

// awaitFeedback asks the leader once. What comes after ctx has ended is given back.
func (s *Server) awaitFeedback(ctx context.Context) (FeedbackBatch, error) {
	var batch FeedbackBatch
	var err error
	answered := make(chan struct{})
	asks := s.running.Go(func() {
		defer close(answered)
		call, end := context.WithTimeout(s.ctx, feedbackRound+answerPatience)
		defer end()
		batch, err = AskLeader(call, s, verbNextFeedback, feedbackRound, s.feedbackWithin)
	})
	if !asks {
		return FeedbackBatch{}, ErrServiceUnavailable.With("%v", ErrClosing)
	}
	select {
	case <-answered:
		return batch, err
	case <-ctx.Done():
	}
	s.running.Go(func() {
		if <-answered; batch.LockToken != "" {
			_ = s.AbandonFeedback(batch.LockToken) // else its lock ends in a minute
		}
	})
	return FeedbackBatch{}, ctx.Err()
}
