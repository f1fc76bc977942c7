package bearer_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/iotdm/iotdm/internal/bearer"
)

// credential is an azcore.TokenCredential.
type credential func(ctx context.Context) (azcore.AccessToken, error)

func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if want := []string{"https://iothubs.azure.net/.default"}; !slices.Equal(o.Scopes, want) {
		return azcore.AccessToken{}, errors.New("another scope")
	}
	return c(ctx)
}

func TestTokensAreKeptUntilFiveMinutesBeforeTheirEnd(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now, allowed, asked := start, true, 0
	s := bearer.New(credential(func(context.Context) (azcore.AccessToken, error) {
		asked++
		if !allowed {
			return azcore.AccessToken{}, errors.New("no")
		}
		return azcore.AccessToken{Token: strconv.Itoa(asked), ExpiresOn: now.Add(time.Hour)}, nil
	}), bearer.IoTHub, func() time.Time { return now })
	for _, step := range []struct {
		name    string
		at      time.Duration
		allowed bool
		want    string
		asked   int
	}{
		{"the first token", 0, true, "1", 1},
		{"still good", 54 * time.Minute, true, "1", 1},
		{"five minutes before its end it can't be replaced", 55 * time.Minute, false, "1", 2},
		{"nobody is asked again at once", 55*time.Minute + 20*time.Second, false, "1", 2},
		{"but soon", 55*time.Minute + 40*time.Second, true, "3", 3},
		{"past its end there is none", 3 * time.Hour, false, "", 4},
		{"until there is one", 3 * time.Hour, true, "5", 5},
	} {
		now, allowed = start.Add(step.at), step.allowed
		got, err := s.Token(t.Context())
		if got != step.want || (err != nil) != (step.want == "") || asked != step.asked {
			t.Errorf("%s: %q, %v, asked %d times; want %q, asked %d times", step.name, got, err, asked, step.want, step.asked)
		}
	}
}

func TestWhenTokensAreReplaced(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		name          string
		life, refresh time.Duration // 0: whoever gave it out says nothing
		want          time.Duration // of use; 0: it is refused
	}{
		{"an hour", time.Hour, 0, 55 * time.Minute},
		{"a short life", time.Minute, 0, 30 * time.Second},
		{"a day, to be replaced half way", 24 * time.Hour, 12 * time.Hour, 12 * time.Hour},
		{"to be replaced at once", time.Hour, -time.Second, 55 * time.Minute},
		{"to be replaced when it is over", time.Hour, 2 * time.Hour, 55 * time.Minute},
		{"over", 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			now, asked := start, 0
			s := bearer.New(credential(func(context.Context) (azcore.AccessToken, error) {
				asked++
				token := azcore.AccessToken{Token: "t", ExpiresOn: now.Add(tt.life)}
				if tt.refresh != 0 {
					token.RefreshOn = now.Add(tt.refresh)
				}
				return token, nil
			}), bearer.IoTHub, func() time.Time { return now })
			if _, err := s.Token(t.Context()); (err != nil) != (tt.want == 0) {
				t.Fatal(err)
			}
			if tt.want == 0 {
				return
			}
			for _, step := range []struct {
				at    time.Duration
				asked int
			}{{tt.want - time.Millisecond, 1}, {tt.want, 2}} {
				now = start.Add(step.at)
				if _, err := s.Token(t.Context()); err != nil || asked != step.asked {
					t.Errorf("after %v: %v, asked %d times, want %d", step.at, err, asked, step.asked)
				}
			}
		})
	}
}

func TestAnEmptyTokenIsNone(t *testing.T) {
	s := bearer.New(credential(func(context.Context) (azcore.AccessToken, error) {
		return azcore.AccessToken{ExpiresOn: time.Now().Add(time.Hour)}, nil
	}), bearer.IoTHub, time.Now)
	if token, err := s.Token(t.Context()); err == nil {
		t.Errorf("Token = %q", token)
	}
}

func TestOneCallerFetchesForAll(t *testing.T) {
	asked := 0
	s := bearer.New(credential(func(context.Context) (azcore.AccessToken, error) {
		asked++ // the race detector tells of a second caller
		return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
	}), bearer.IoTHub, time.Now)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := s.Token(t.Context()); got != "t" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if asked != 1 {
		t.Errorf("asked %d times, want once", asked)
	}
}

func TestWaitingForATokenEndsWithTheContext(t *testing.T) {
	fetching := make(chan struct{})
	s := bearer.New(credential(func(ctx context.Context) (azcore.AccessToken, error) {
		close(fetching)
		<-ctx.Done()
		return azcore.AccessToken{}, errors.New("its own words for it")
	}), bearer.IoTHub, time.Now)
	reason := errors.New("changed my mind")
	fetcher, cancelFetcher := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Token(fetcher); !errors.Is(err, reason) {
			t.Errorf("who fetches: %v", err)
		}
	})
	<-fetching
	waiter, cancelWaiter := context.WithCancelCause(t.Context())
	cancelWaiter(reason)
	if _, err := s.Token(waiter); !errors.Is(err, reason) {
		t.Errorf("who waits: %v", err)
	}
	cancelFetcher(reason)
	wg.Wait()
}
