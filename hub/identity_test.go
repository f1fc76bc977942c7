package hub

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

// asOld returns i as the hubs stored it that printed REST's members.
func asOld(t testing.TB, i Identity) []byte {
	t.Helper()
	old := oldIdentity{
		GenerationID: i.GenerationID, Version: i.Version, Status: i.Status, StatusReason: i.StatusReason,
		StatusUpdated: i.StatusUpdated, IoTEdge: i.IoTEdge, ManagedBy: i.ManagedBy,
		DeviceScope: i.DeviceScope, ParentScopes: i.ParentScopes,
	}
	old.Auth.Type = i.Auth.Type
	old.Auth.SymmetricKey.Primary, old.Auth.SymmetricKey.Secondary = i.Auth.SymmetricKey.Primary, i.Auth.SymmetricKey.Secondary
	old.Auth.X509.Primary, old.Auth.X509.Secondary = i.Auth.X509.Primary, i.Auth.X509.Secondary
	data, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decoded(t testing.TB, id ID, data []byte) Identity {
	t.Helper()
	i, err := decodeIdentity(id, data, nil)
	if err != nil {
		t.Fatalf("decode %q: %v", data, err)
	}
	return i
}

// What is stored of an identity is read as it was, in the form of today and in
// the one before, and nothing that is stored makes the hub panic.
func FuzzIdentity(f *testing.F) {
	f.Add([]byte(nil), byte(0), "", "", uint64(0), int64(0), "", "")
	f.Add([]byte{identityFormat}, byte(0xff), "sas", "639000000000000000", uint64(1<<63), int64(-1), "a reason", "ms-azure-iot-edge://e-1\nms-azure-iot-edge://e-2")
	f.Add([]byte{identityFormat, disabledByte, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, byte(0x55), "selfSigned", "1", uint64(7), int64(1e18), "\xff", "\n")
	f.Add([]byte(`{"status":"disabled","authentication":{"type":"none"}}`), byte(0xaa), "none", "2", uint64(8), int64(1), "", "scope")
	f.Add([]byte(`{"status":1}`), byte(1), "certificateAuthority", "", uint64(9), int64(2), "é", "")
	f.Fuzz(func(t *testing.T, stored []byte, flags byte, authType, generation string, version uint64, updated int64, text, scopes string) {
		id := ID{Device: "d", Module: "m"}
		pointer := func(bit int, s string) *string {
			if flags&(1<<bit) == 0 {
				return nil
			}
			return &s
		}
		want := Identity{
			ID: id, GenerationID: generation, Version: version, Status: StatusEnabled, StatusReason: pointer(0, text),
			Auth: Authentication{
				Type:         AuthType(authType),
				SymmetricKey: SymmetricKey{Primary: sas.Key(text), Secondary: sas.Key(generation)},
				X509:         X509Thumbprint{Primary: pointer(1, text), Secondary: pointer(2, generation)},
			},
			IoTEdge: flags&(1<<3) != 0, ManagedBy: pointer(4, scopes), DeviceScope: text,
		}
		if flags&(1<<5) != 0 {
			want.Status = StatusDisabled
		}
		if updated != 0 {
			want.StatusUpdated = time.Unix(0, updated).UTC()
		}
		if scopes != "" {
			want.ParentScopes = strings.Split(scopes, "\n")
		}
		data := want.encode()
		if diff := cmp.Diff(want, decoded(t, id, data)); diff != "" {
			t.Errorf("identity (-want +got):\n%s", diff)
		}
		if got := storedStatus(data); got != want.Status {
			t.Errorf("stored status %q, want %q", got, want.Status)
		}
		if got := storedAuthType(data); got != want.Auth.Type {
			t.Errorf("stored authentication type %q, want %q", got, want.Auth.Type)
		}
		for n := range data {
			if i, err := decodeIdentity(id, data[:n], nil); err == nil {
				t.Errorf("the first %d of %d bytes are taken for %+v", n, len(data), i)
			}
		}
		if utf8.ValidString(strings.Join([]string{authType, generation, text, scopes}, "\x00")) {
			old := asOld(t, want)
			if diff := cmp.Diff(want, decoded(t, id, old)); diff != "" {
				t.Errorf("identity in the old form (-want +got):\n%s", diff)
			}
			if got := storedStatus(old); got != want.Status {
				t.Errorf("stored status %q in the old form, want %q", got, want.Status)
			}
			if got := storedAuthType(old); got != want.Auth.Type {
				t.Errorf("stored authentication type %q in the old form, want %q", got, want.Auth.Type)
			}
		}

		// Whatever else is stored is read again as it was read, or refused.
		storedStatus(stored)
		storedAuthType(stored)
		if i, err := decodeIdentity(id, stored, nil); err == nil && !isOldIdentity(stored) {
			if diff := cmp.Diff(i, decoded(t, id, i.encode())); diff != "" {
				t.Errorf("identity from %q (-read +stored again):\n%s", stored, diff)
			}
		}
	})
}

func TestIdentitiesOfOldHubsAreReadAsTheirs(t *testing.T) {
	id := ID{Device: "e1"}
	stored := []byte(`{"generationId":"639000000000000001","version":104,"status":"disabled","statusReason":"broken",` +
		`"statusUpdated":"2026-03-14T09:26:53.5897932Z","authentication":{"symmetricKey":{"primaryKey":"a2V5MQ==","secondaryKey":"a2V5Mg=="},` +
		`"x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},"iotEdge":true,"managedBy":null,` +
		`"deviceScope":"ms-azure-iot-edge://e1-639000000000000001","parentScopes":["ms-azure-iot-edge://e0-1"]}`)
	reason := "broken"
	want := Identity{
		ID: id, GenerationID: "639000000000000001", Version: 104, Status: StatusDisabled, StatusReason: &reason,
		StatusUpdated: time.Date(2026, 3, 14, 9, 26, 53, 589_793_200, time.UTC),
		Auth:          Authentication{Type: AuthSAS, SymmetricKey: SymmetricKey{Primary: "a2V5MQ==", Secondary: "a2V5Mg=="}},
		IoTEdge:       true, DeviceScope: "ms-azure-iot-edge://e1-639000000000000001", ParentScopes: []string{"ms-azure-iot-edge://e0-1"},
	}
	got := decoded(t, id, stored)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	again := got.encode()
	if again[0] != identityFormat || bytes.Contains(again, []byte("generationId")) {
		t.Errorf("it is stored as %q", again)
	}
	if diff := cmp.Diff(want, decoded(t, id, again)); diff != "" {
		t.Errorf("identity in the new form (-want +got):\n%s", diff)
	}
}
