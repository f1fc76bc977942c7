package serve_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/iotdm/iotdm/hub/internal/serve"
)

var discard = slog.New(slog.DiscardHandler)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestAClosedGroupBeginsNothing(t *testing.T) {
	g := serve.NewGroup()
	g.Close()
	g.Close()
	if g.Go(func() { t.Error("it runs") }) || g.Enter() {
		t.Error("a closed group lets something begin")
	}
	l := listen(t)
	if _, err := g.Track(l); err != serve.ErrClosed {
		t.Errorf("Track: %v, want %v", err, serve.ErrClosed)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a listener that came too late: %v, want it closed", err)
	}
	if err := g.Accept(listen(t), "test", discard, nil); err != serve.ErrClosed {
		t.Errorf("Accept: %v, want %v", err, serve.ErrClosed)
	}
	if g.Context().Err() == nil {
		t.Error("its context has not ended")
	}
	g.Wait()
}

func TestWaitWaitsForAllThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := serve.NewGroup()
		var last time.Time
		g.Go(func() {
			<-g.Context().Done()
			time.Sleep(time.Minute) // in the bubble
			if g.Go(func() {}) {
				t.Error("something begins after Close")
			}
		})
		if !g.Enter() {
			t.Fatal("an open group lets nobody in")
		}
		go func() {
			time.Sleep(time.Hour)
			last = time.Now()
			g.Leave()
		}()
		began := time.Now()
		g.Close()
		g.Wait()
		if took := time.Since(began); took != time.Hour || last.IsZero() {
			t.Errorf("Wait took %v, want an hour", took)
		}
	})
}

func TestCloseEndsWhatWasAccepted(t *testing.T) {
	g := serve.NewGroup()
	l := listen(t)
	began, served := make(chan struct{}), make(chan error, 1)
	go func() {
		served <- g.Accept(l, "test", discard, func(nc net.Conn) {
			defer nc.Close()
			close(began)
			<-g.Context().Done()
		})
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	<-began
	g.Close()
	if err := <-served; err != serve.ErrClosed {
		t.Errorf("Accept returned %v, want %v", err, serve.ErrClosed)
	}
	g.Wait()
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("after Wait the connection gives %d bytes", n)
	}
	if nc, err := net.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("the listener still accepts")
	}
}

func TestStopListeningLeavesWhatWasAccepted(t *testing.T) {
	g := serve.NewGroup()
	l := listen(t)
	served := make(chan error, 1)
	go func() {
		served <- g.Accept(l, "test", discard, func(nc net.Conn) {
			defer nc.Close()
			nc.Read(make([]byte, 1))
			nc.Write([]byte("y"))
		})
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte("x")); err != nil { // it may not be accepted yet
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	g.StopListening()
	if err := <-served; err != serve.ErrClosed {
		t.Errorf("Accept returned %v, want %v", err, serve.ErrClosed)
	}
	if !g.Go(func() {}) || g.Context().Err() != nil {
		t.Error("the group is closed")
	}
	g.Close()
	g.Wait()
}

func TestUntrackClosesTheListener(t *testing.T) {
	g := serve.NewGroup()
	l := listen(t)
	untrack, err := g.Track(l)
	if err != nil {
		t.Fatal(err)
	}
	untrack()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("an untracked listener: %v, want it closed", err)
	}
	g.Close()
	g.Wait() // for nothing
}

// A failingListener fails with each of its errors, and then hands out the end of
// a pipe again and again.
type failingListener struct {
	errs   []error
	conns  chan net.Conn
	closed chan struct{}
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	select {
	case nc := <-l.conns:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *failingListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *failingListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// A shortage is what a listener says when file descriptors have run out.
type shortage struct{}

func (shortage) Error() string   { return "too many open files" }
func (shortage) Temporary() bool { return true }

func TestAcceptGoesOnAfterAShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := serve.NewGroup()
		l := &failingListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		for range 10 {
			l.errs = append(l.errs, shortage{})
		}
		var log bytes.Buffer
		handled, served := make(chan net.Conn), make(chan error, 1)
		go func() {
			served <- g.Accept(l, "test", slog.New(slog.NewTextHandler(&log, nil)), func(nc net.Conn) { handled <- nc })
		}()
		began := time.Now()
		ours, theirs := net.Pipe()
		defer ours.Close()
		l.conns <- theirs
		if nc := <-handled; nc != theirs {
			t.Errorf("%v is handled", nc)
		}
		// 5, 10, 20, 40, 80, 160, 320 and 640 ms, and then a second each.
		if took := time.Since(began); took != 1275*time.Millisecond+2*time.Second {
			t.Errorf("ten times too many open files took %v", took)
		}
		g.Close()
		if err := <-served; err != serve.ErrClosed {
			t.Errorf("Accept returned %v, want %v", err, serve.ErrClosed)
		}
		g.Wait()
		if n := strings.Count(log.String(), "too many open files"); n != 10 {
			t.Errorf("the log tells of it %d times:\n%s", n, &log)
		}
	})
}

func TestCloseEndsAcceptInAShortage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := serve.NewGroup()
		l := &failingListener{closed: make(chan struct{})}
		for range 100 {
			l.errs = append(l.errs, shortage{})
		}
		served := make(chan error, 1)
		go func() { served <- g.Accept(l, "test", discard, nil) }()
		time.Sleep(10*time.Second + time.Millisecond) // in the bubble: amid a wait
		began := time.Now()
		g.Close()
		if err := <-served; err != serve.ErrClosed || time.Since(began) != 0 {
			t.Errorf("Accept returned %v after %v", err, time.Since(began))
		}
		g.Wait()
	})
}

func TestAcceptFailsWithItsListener(t *testing.T) {
	broken := errors.New("broken")
	g := serve.NewGroup()
	l := &failingListener{errs: []error{broken}, closed: make(chan struct{})}
	if err := g.Accept(l, "test", discard, nil); !errors.Is(err, broken) || !strings.Contains(err.Error(), "test on 127.0.0.1:1") {
		t.Errorf("Accept returned %v", err)
	}
	<-l.closed // it owned the listener
	g.Close()
	g.Wait()
}
