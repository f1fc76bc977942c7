package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/iotdm/iotdm/cli/internal/command"
	"github.com/iotdm/iotdm/sas"
)

// hubTime is what the hub's clock showed.
type hubTime struct {
	off   time.Duration // of this machine's clock, positive when it is ahead
	known bool
	err   error // why it is not known
}

// now is the time by the hub's clock; zero if that is not known.
func (h hubTime) now(local func() time.Time) time.Time {
	if !h.known {
		return time.Time{}
	}
	return local().Add(-h.off)
}

// late reports whether this machine's clock is off by more than hubs allow.
func (h hubTime) wrong() bool { return h.known && h.off.Abs() > sas.Skew }

// signing is the time that a token is dated with.
func (x *examination) signing() time.Time { return x.Now().Add(x.Ahead) }

const clockRemedy = "set this machine's clock, for example with NTP"

func describeOff(off time.Duration) string {
	direction := "ahead of"
	if off < 0 {
		direction = "behind"
	}
	return fmt.Sprintf("%v %s the hub's", off.Abs().Round(time.Second), direction)
}

// askTime reads the clock of the hub: every HTTP answer of it bears a date, also
// a refusal. It asks without a credential, so whoever answers may.
func (x *examination) askTime(ctx context.Context) hubTime {
	ctx, cancel := x.step(ctx)
	defer cancel()
	conn, err := x.shake(ctx, &x.https, x.unverified(&x.https))
	if err != nil {
		return hubTime{err: err}
	}
	defer conn.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+x.https.urlHost()+"/devices?api-version=2021-04-12", nil)
	if err != nil {
		return hubTime{err: err}
	}
	asked := x.Now()
	response, err := roundTrip(ctx, conn, request)
	if err != nil {
		return hubTime{err: err}
	}
	date, err := http.ParseTime(response.Header.Get("Date"))
	if err != nil {
		return hubTime{err: errors.New("its answers bear no date")}
	}
	// The date was written some time between, with its second cut off.
	between := asked.Add(x.Now().Sub(asked) / 2)
	return hubTime{off: between.Add(x.Ahead).Sub(date.Add(time.Second / 2)), known: true}
}

// maxAnswer bounds the headers, and the body, of an answer.
const maxAnswer = 64 << 10

// roundTrip sends a request on conn and reads the answer. The connection is of
// no use after that.
func roundTrip(ctx context.Context, conn *tls.Conn, request *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(ctx, func() { conn.NetConn().SetDeadline(time.Unix(1, 0)) })
	defer stop()
	request.Close = true
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), request)
	if err != nil {
		return nil, fmt.Errorf("no HTTP answer: %w", err)
	}
	return response, nil
}

func (x *examination) checkClock() Check {
	h := x.hubTime
	switch {
	case x.https.tcpErr != nil || x.https.tlsErr != nil:
		return skipped(CheckClock, "the hub's clock is read over HTTPS, which is not reached")
	case !h.known:
		return skipped(CheckClock, "the hub does not tell the time: "+plainError(h.err))
	case h.wrong():
		return failed(CheckClock, "this machine's clock is "+describeOff(h.off), clockRemedy)
	case h.off.Abs() > time.Minute:
		return warning(CheckClock, "this machine's clock is "+describeOff(h.off)+fmt.Sprintf("; hubs allow %v", sas.Skew), clockRemedy)
	}
	if x.Ahead != 0 {
		ahead := command.Seconds(x.Ahead)
		return ok(CheckClock, "the hub's clock was moved by "+ahead.String())
	}
	return ok(CheckClock, "within "+(h.off.Abs().Truncate(time.Second)+time.Second).String()+" of the hub's")
}
