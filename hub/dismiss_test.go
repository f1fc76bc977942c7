package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

func TestDismissEndsConnectionsSlowlyAndWaitsForMethods(t *testing.T) {
	h := hubtest.New(t)
	var links []*memoryLink
	for i := range 40 {
		id := hub.ID{Device: fmt.Sprintf("d%d", i)}
		h.Device(id.Device)
		links = append(links, attach(t, h.Node, id))
	}
	busy := links[7]
	called, answer := make(chan struct{}), make(chan struct{})
	busy.serve(func(context.Context, string, json.RawMessage) (hub.MethodAnswer, error) {
		close(called)
		<-answer
		return hub.MethodAnswer{Status: 200}, nil
	})
	result := make(chan error, 1)
	go func() {
		_, err := h.InvokeMethod(context.Background(), busy.peer.ID, hub.MethodCall{Name: "m"})
		result <- err
	}()
	<-called

	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.Dismiss(context.Background())
	}()
	for _, l := range links {
		if l == busy {
			continue
		}
		if why := l.ended(t); why != hub.ErrClosing {
			t.Errorf("the link of %s ended because of %v", l.peer.ID, why)
		}
	}
	if took := time.Since(began); took < 60*time.Millisecond {
		t.Errorf("39 connections ended in %v", took)
	}
	if why := busy.why(); why != nil {
		t.Errorf("a link has ended before it has answered: %v", why)
	}
	h.Device("late")
	late := attach(t, h.Node, hub.ID{Device: "late"}) // it was accepted before
	close(answer)
	if err := <-result; err != nil {
		t.Errorf("the method was answered: %v", err)
	}
	for _, l := range []*memoryLink{busy, late} {
		if why := l.ended(t); why != hub.ErrClosing {
			t.Errorf("the link of %s ended because of %v", l.peer.ID, why)
		}
	}
	select {
	case <-done:
	case <-time.After(wiretest.Patience):
		t.Error("Dismiss does not end")
	}
}

func TestDismissEndsWithItsTime(t *testing.T) {
	h := hubtest.New(t)
	var links []*memoryLink
	for i := range 40 {
		id := hub.ID{Device: fmt.Sprintf("d%d", i)}
		h.Device(id.Device)
		links = append(links, attach(t, h.Node, id))
	}
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	h.Dismiss(ctx)
	for _, l := range links {
		if why := l.why(); why != nil {
			t.Errorf("the link of %s ended because of %v", l.peer.ID, why)
		}
	}
}
