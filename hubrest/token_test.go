package hubrest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestBearerTokensAreKeptUntilFiveMinutesBeforeTheirEnd(t *testing.T) {
	allowed := true
	a := newAuthority(t, func(url.Values) error {
		if !allowed {
			return errors.New("no")
		}
		return nil
	})
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := a.options()
	o.Now = func() time.Time { return now }
	cred, err := hubrest.NewClientSecret(o, "s")
	if err != nil {
		t.Fatal(err)
	}
	start := now
	for _, step := range []struct {
		name    string
		at      time.Duration
		allowed bool
		want    string
		asked   int
	}{
		{"the first token", 0, true, "Bearer token-1", 1},
		{"still good", 54 * time.Minute, true, "Bearer token-1", 1},
		{"five minutes before its end it can't be replaced", 55 * time.Minute, false, "Bearer token-1", 2},
		{"nobody is asked again at once", 55*time.Minute + 20*time.Second, false, "Bearer token-1", 2},
		{"but soon", 55*time.Minute + 40*time.Second, true, "Bearer token-3", 3},
		{"past its end there is none", 3 * time.Hour, false, "", 4},
		{"until the authority gives one", 3 * time.Hour, true, "Bearer token-5", 5},
	} {
		now, allowed = start.Add(step.at), step.allowed
		got, err := cred.Authorization(t.Context())
		if got != step.want || (err != nil) != (step.want == "") || a.rec.count() != step.asked {
			t.Errorf("%s: %q, %v, asked %d times; want %q, asked %d times", step.name, got, err, a.rec.count(), step.want, step.asked)
		}
	}
}

func TestOneCallerFetchesForAll(t *testing.T) {
	a := newAuthority(t, func(url.Values) error { return nil })
	cred, err := hubrest.NewClientSecret(a.options(), "s")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := cred.Authorization(t.Context()); got != "Bearer token-1" {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := a.rec.count(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestWaitingForATokenEndsWithTheContext(t *testing.T) {
	fetching := make(chan struct{})
	a := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		close(fetching)
		<-req.Context().Done()
		panic(http.ErrAbortHandler) // an empty answer might still reach who has gone
	})
	cred, err := hubrest.NewClientSecret(hubrest.EntraOptions{TenantID: "t", ClientID: "c", Authority: a.URL, HTTPClient: a.Client()}, "s")
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("changed my mind")
	fetcher, cancelFetcher := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := cred.Authorization(fetcher); !errors.Is(err, reason) {
			t.Errorf("who fetches: %v", err)
		}
	})
	<-fetching
	waiter, cancelWaiter := context.WithCancelCause(t.Context())
	cancelWaiter(reason)
	if _, err := cred.Authorization(waiter); !errors.Is(err, reason) {
		t.Errorf("who waits: %v", err)
	}
	cancelFetcher(reason)
	wg.Wait()
}

func TestTokenEndpointsInTroubleAreAskedAgain(t *testing.T) {
	for _, tt := range []struct {
		name, steps string
		asked       int
		ok          bool
	}{
		{"throttled, then busy", "429 503", 3, true},
		{"cut off", "cut cut", 3, true},
		{"cut off too often", "cut cut cut", 3, false},
		{"broken for good", "500 500 500 500", 4, false},
		{"refused", "400", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			a := newServer(t, misbehave(&rec, `{"access_token":"x","expires_in":"60"}`, strings.Fields(tt.steps)...))
			cred, err := hubrest.NewClientSecret(hubrest.EntraOptions{TenantID: "t", ClientID: "c", Authority: a.URL, HTTPClient: a.Client()}, "s")
			if err != nil {
				t.Fatal(err)
			}
			pauses := hubrest.ForTest(cred)
			got, err := cred.Authorization(t.Context())
			if (err == nil) != tt.ok || rec.count() != tt.asked || tt.ok != (got == "Bearer x") {
				t.Errorf("%q, %v, asked %d times", got, err, rec.count())
			}
			if strings.HasPrefix(tt.steps, "429") && (*pauses)[0] < 7*time.Second {
				t.Errorf("pauses %v, want the first to be over 7 s as asked for", *pauses)
			}
		})
	}
}

func TestTokenAnswersAreReadInEverySpelling(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name, body string
		want       time.Time // of renewal; zero: an error
	}{
		{"seconds left", `{"access_token":"x","expires_in":3600}`, now.Add(55 * time.Minute)},
		{"seconds left, as text", `{"access_token":"x","expires_in":"3600","expires_on":"1"}`, now.Add(55 * time.Minute)},
		{"the end", fmt.Sprintf(`{"access_token":"x","expires_on":"%d"}`, now.Add(time.Hour).Unix()), now.Add(55 * time.Minute)},
		{"a short life", `{"access_token":"x","expires_in":60}`, now.Add(30 * time.Second)},
		{"no end", `{"access_token":"x"}`, time.Time{}},
		{"ended", `{"access_token":"x","expires_in":0}`, time.Time{}},
		{"no token", `{"expires_in":3600}`, time.Time{}},
		{"a token that breaks the line", `{"access_token":"x\r\nHost: y","expires_in":3600}`, time.Time{}},
		{"not JSON", `access_token=x`, time.Time{}},
		{"a time that is no number", `{"access_token":"x","expires_in":"soon"}`, time.Time{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := hubrest.ParseAccessToken([]byte(tt.body), now)
			if diff := cmp.Diff(tt.want, got.UTC()); diff != "" || (err != nil) != tt.want.IsZero() {
				t.Errorf("%s: %v (-want +got):\n%s", tt.body, err, diff)
			}
		})
	}
}
