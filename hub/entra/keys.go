package entra

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/internal/jsontext"
)

const (
	keySetRetry   = time.Minute    // an unknown key id has the set read again at most this often
	keySetLife    = 24 * time.Hour // a known key is looked up again after this, since keys are withdrawn
	keySetTimeout = 10 * time.Second
	maxKeySet     = 1 << 20 // bytes
	maxKeys       = 1000    // of a set; issuers have a dozen
	minRSABits    = 2048
	maxRSABits    = 8192
)

// A keySet is a JSON Web Key Set (RFC 7517) that is read when it is first
// needed, and again when a key id is not in it: issuers change their keys.
type keySet struct {
	place string // https URL or path
	now   func() time.Time
	http  http.Client

	reading sync.Mutex // held while the set is read; taken before mu

	mu    sync.Mutex // guards what follows
	keys  map[string]*rsa.PublicKey
	tried time.Time // when the set was read, or could not be
}

func newKeySet(place string, now func() time.Time) *keySet {
	return &keySet{place: place, now: now, http: http.Client{Timeout: keySetTimeout}}
}

// key returns the key with this id.
func (s *keySet) key(ctx context.Context, id string) (*rsa.PublicKey, error) {
	k, due := s.known(id)
	if due {
		var err error
		if k, err = s.renew(ctx, id); err != nil {
			return nil, fmt.Errorf("key set: %w", err)
		}
	}
	if k == nil {
		return nil, errors.New("it is signed with a key that is not in the key set")
	}
	return k, nil
}

// renew has the set read by one caller, while others that need it wait. It
// fails only if the key is not known from before.
func (s *keySet) renew(ctx context.Context, id string) (*rsa.PublicKey, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	k, due := s.known(id)
	if !due {
		return k, nil
	}
	// One caller that goes away must not fail those that wait with it.
	if err := s.reload(context.WithoutCancel(ctx)); err != nil && k == nil {
		return nil, err
	}
	k, _ = s.known(id)
	return k, nil
}

// known returns the key, if it is known, and whether the set is due to be read.
func (s *keySet) known(id string) (key *rsa.PublicKey, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, wait := s.keys[id], keySetRetry
	if key != nil {
		wait = keySetLife
	}
	return key, s.tried.IsZero() || s.now().Sub(s.tried) >= wait
}

// reload reads the set. One that cannot be read leaves the last one in use.
func (s *keySet) reload(ctx context.Context) error {
	keys := map[string]*rsa.PublicKey(nil)
	data, err := s.load(ctx)
	if err == nil {
		keys, err = parseKeySet(data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tried = s.now()
	if err == nil {
		s.keys = keys
	}
	return err
}

func (s *keySet) load(ctx context.Context) ([]byte, error) {
	if !strings.Contains(s.place, "://") {
		return os.ReadFile(s.place)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.place, nil)
	if err != nil {
		return nil, err
	}
	if req.URL.Scheme != "https" {
		return nil, errors.New("its URL must begin with https")
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", req.URL.Host, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet+1))
	if err == nil && len(data) > maxKeySet {
		err = fmt.Errorf("it has more than %d bytes", maxKeySet)
	}
	return data, err
}

// parseKeySet reads the RSA keys of a set and passes over all others.
func parseKeySet(data []byte) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, err
	}
	if jsontext.More(set.Keys, maxKeys) {
		return nil, fmt.Errorf("it has more than %d keys", maxKeys)
	}
	var list []struct {
		Type     string `json:"kty"`
		ID       string `json:"kid"`
		Use      string `json:"use"`
		Modulus  string `json:"n"`
		Exponent string `json:"e"`
	}
	if len(set.Keys) > 0 {
		if err := json.Unmarshal(set.Keys, &list); err != nil {
			return nil, err
		}
	}
	keys := make(map[string]*rsa.PublicKey)
	for _, k := range list {
		if k.Type != "RSA" || k.ID == "" || k.Use != "" && k.Use != "sig" {
			continue
		}
		n, err := base64.RawURLEncoding.DecodeString(k.Modulus)
		if err != nil {
			return nil, fmt.Errorf("key %s: its modulus is not base64url", words.Clip(k.ID))
		}
		e, err := base64.RawURLEncoding.DecodeString(k.Exponent)
		if err != nil || len(e) == 0 || len(e) > 3 {
			return nil, fmt.Errorf("key %s: its exponent is not a small number", words.Clip(k.ID))
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		if key.E < 3 || key.E%2 == 0 {
			return nil, fmt.Errorf("key %s: %d is no exponent of a key", words.Clip(k.ID), key.E)
		}
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
			return nil, fmt.Errorf("key %s: it has %d bits, not %d to %d", words.Clip(k.ID), n, minRSABits, maxRSABits)
		}
		keys[k.ID] = key
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no RSA key for signatures")
	}
	return keys, nil
}
