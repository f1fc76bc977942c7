package sas_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

func TestNewKey(t *testing.T) {
	a, b := sas.NewKey(), sas.NewKey()
	if a == b {
		t.Error("NewKey gave the same key twice")
	}
	if err := a.Validate(); err != nil || len(a) != 44 {
		t.Errorf("NewKey has %d characters: %v", len(a), err)
	}
}

func TestKeyValidate(t *testing.T) {
	tests := []struct {
		name, key, want string
	}{
		{"16 bytes", "AAAAAAAAAAAAAAAAAAAAAA==", ""},
		{"15 bytes", "AAAAAAAAAAAAAAAAAAAA", "not 16 to 64 bytes of base64"},
		{"nothing", "", "not 16 to 64 bytes of base64"},
		{"65 bytes", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "not 16 to 64 bytes of base64"},
		{"no padding", "AAAAAAAAAAAAAAAAAAAAAA", "not base64"},
		{"a line end", "AAAAAAAAAAAAAAAAAAAAAA==\n", "not base64"},
		{"the URL alphabet", "AAAAAAAAAAAAAAAAAAAA_-==", "not base64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := sas.Key(tt.key).Validate(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Validate (-want +got):\n%s", diff)
			}
			_, err := sas.Sign("h", "", sas.Key(tt.key), time.Unix(5, 0))
			if (err != nil) != (tt.want != "") {
				t.Errorf("Sign with it: %v", err)
			}
		})
	}
}

func TestRenewAt(t *testing.T) {
	tests := []struct {
		name       string
		life, want time.Duration
	}{
		{"an hour is renewed at 85 %", time.Hour, 51 * time.Minute},
		{"ten minutes leave two", 10 * time.Minute, 8 * time.Minute},
		{"twelve minutes leave two", 12 * time.Minute, 10 * time.Minute},
		{"one minute is renewed at 80 %", time.Minute, 48 * time.Second},
		{"no life at all", 0, 0},
		{"over before it began", -time.Hour, 0},
		{"two centuries do not overflow", 200 * 365 * 24 * time.Hour, 170 * 365 * 24 * time.Hour},
	}
	issued := time.Unix(1700000000, 0)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := sas.RenewAt(issued, issued.Add(tt.life)).Sub(issued); got != tt.want {
				t.Errorf("a life of %v is renewed after %v, want %v", tt.life, got, tt.want)
			}
		})
	}
}
