package hubrest_test

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

func TestTokensAreUsedUntilTheyNeedRenewal(t *testing.T) {
	var rec recorder
	srv := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		io.WriteString(w, `{}`)
	})
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var now atomic.Int64
	o := options(srv)
	o.Now = func() time.Time { return start.Add(time.Duration(now.Load())) }
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got []time.Duration
	for _, at := range []time.Duration{0, 45 * time.Minute, 55 * time.Minute, 56 * time.Minute} {
		now.Store(int64(at))
		if _, err := c.Device(t.Context(), "dev1"); err != nil {
			t.Fatal(err)
		}
		token, err := sas.ParseToken(rec.seen[len(rec.seen)-1].Header.Get("Authorization"))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, token.Expiry.Sub(start))
	}
	want := []time.Duration{time.Hour, time.Hour, 115 * time.Minute, 115 * time.Minute}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("expiry of the tokens (-want +got):\n%s", diff)
	}
}

func TestAGivenTokenIsSentAsItIs(t *testing.T) {
	var rec recorder
	srv := newServer(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		io.WriteString(w, `{}`)
	})
	const token = "SharedAccessSignature sr=h&sig=YQ%3D%3D&se=4102444800&skn=service"
	o := options(srv)
	o.ConnectionString = sas.ConnectionString{HostName: "h", SharedAccessSignature: token}
	c, err := hubrest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Device(t.Context(), "dev1"); err != nil {
		t.Fatal(err)
	}
	if got := rec.seen[0].Header.Get("Authorization"); got != token {
		t.Errorf("Authorization %q, want %q", got, token)
	}
}

func TestAClientMayBeUsedConcurrently(t *testing.T) {
	var rec recorder
	c := newClient(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		io.WriteString(w, `{}`)
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := c.Device(t.Context(), "dev1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tokens := map[string]bool{}
	for _, req := range rec.seen {
		tokens[req.Header.Get("Authorization")] = true
	}
	if len(tokens) != 1 {
		t.Errorf("%d tokens were signed, want 1", len(tokens))
	}
}
