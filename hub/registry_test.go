package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/sas"
)

func TestIdentityLifeCycle(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "dev-1"}

	if _, err := s.Identity(id); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Errorf("Identity before creation: %v, want %v", err, hub.ErrDeviceNotFound)
	}
	first := wiretest.Create(t, s, id, hub.IdentitySpec{})
	if first.Auth.SymmetricKey.Primary == "" || first.Auth.SymmetricKey.Primary == first.Auth.SymmetricKey.Secondary {
		t.Error("the hub made no keys, or the same key twice")
	}
	if _, err := s.PutIdentity(id, hub.IdentitySpec{}, hub.Match{}); !errors.Is(err, hub.ErrDeviceAlreadyExists) {
		t.Errorf("second creation: %v, want %v", err, hub.ErrDeviceAlreadyExists)
	}

	spec := first.Spec()
	spec.Status = hub.StatusDisabled
	second, err := s.PutIdentity(id, spec, hub.Match{ETag: first.ETag()})
	if err != nil {
		t.Fatal(err)
	}
	want := first
	want.Status, want.Version, want.StatusUpdated = hub.StatusDisabled, first.Version+1, second.StatusUpdated
	if diff := cmp.Diff(want, second); diff != "" {
		t.Errorf("disabled identity (-want +got):\n%s", diff)
	}
	if second.StatusUpdated.IsZero() {
		t.Error("the time of the status change is missing")
	}
	if _, err := s.PutIdentity(id, spec, hub.Match{ETag: first.ETag()}); !errors.Is(err, hub.ErrPreconditionFailed) {
		t.Errorf("update with a stale etag: %v, want %v", err, hub.ErrPreconditionFailed)
	}
	if err := s.DeleteIdentity(id, hub.Match{ETag: first.ETag()}); !errors.Is(err, hub.ErrPreconditionFailed) {
		t.Errorf("delete with a stale etag: %v, want %v", err, hub.ErrPreconditionFailed)
	}
	if err := s.DeleteIdentity(id, hub.Match{Any: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Twin(id); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Errorf("twin of a deleted device: %v, want %v", err, hub.ErrDeviceNotFound)
	}
	if again := wiretest.Create(t, s, id, hub.IdentitySpec{}); again.GenerationID == first.GenerationID {
		t.Error("a device that is created again keeps its generation id")
	}
}

func TestIdentitiesThatAreRefused(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	thumbprint := "nonsense"
	reason := strings.Repeat("x", 129)
	for name, tt := range map[string]struct {
		id   hub.ID
		spec hub.IdentitySpec
		m    hub.Match
		want error
	}{
		"an id with a blank":              {id: hub.ID{Device: "dev 1"}, want: hub.ErrArgumentInvalid},
		"an id with a slash":              {id: hub.ID{Device: "dev/1"}, want: hub.ErrArgumentInvalid},
		"an id that is too long":          {id: hub.ID{Device: strings.Repeat("x", 129)}, want: hub.ErrArgumentInvalid},
		"no id":                           {want: hub.ErrArgumentInvalid},
		"a module of no device":           {id: hub.ID{Device: "none", Module: "m"}, want: hub.ErrDeviceNotFound},
		"an update of no device":          {id: hub.ID{Device: "none"}, m: hub.Match{Any: true}, want: hub.ErrDeviceNotFound},
		"a status that does not exist":    {id: hub.ID{Device: "d"}, spec: hub.IdentitySpec{Status: "off"}, want: hub.ErrArgumentInvalid},
		"a reason that is too long":       {id: hub.ID{Device: "d"}, spec: hub.IdentitySpec{StatusReason: &reason}, want: hub.ErrArgumentInvalid},
		"one key only":                    {id: hub.ID{Device: "d"}, spec: withKeys(sas.NewKey(), ""), want: hub.ErrArgumentInvalid},
		"a key that is not base64":        {id: hub.ID{Device: "d"}, spec: withKeys("***", "***"), want: hub.ErrArgumentInvalid},
		"a thumbprint that is not one":    {id: hub.ID{Device: "d"}, spec: hub.IdentitySpec{Auth: hub.Authentication{X509: hub.X509Thumbprint{Primary: &thumbprint}}}, want: hub.ErrArgumentInvalid},
		"self-signed without thumbprints": {id: hub.ID{Device: "d"}, spec: hub.IdentitySpec{Auth: hub.Authentication{Type: hub.AuthSelfSigned}}, want: hub.ErrArgumentInvalid},
		"an unknown authentication type":  {id: hub.ID{Device: "d"}, spec: hub.IdentitySpec{Auth: hub.Authentication{Type: "password"}}, want: hub.ErrArgumentInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := s.PutIdentity(tt.id, tt.spec, tt.m); !errors.Is(err, tt.want) {
				t.Errorf("PutIdentity(%v) = %v, want %v", tt.id, err, tt.want)
			}
		})
	}
}

func withKeys(primary, secondary sas.Key) hub.IdentitySpec {
	return hub.IdentitySpec{Auth: hub.Authentication{SymmetricKey: hub.SymmetricKey{Primary: primary, Secondary: secondary}}}
}

func TestAnEdgeDeviceIsBornWithItsSystemModules(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	edge := wiretest.Create(t, s, hub.ID{Device: "edge"}, hub.IdentitySpec{IoTEdge: true})
	if want := "ms-azure-iot-edge://edge-" + edge.GenerationID; edge.DeviceScope != want {
		t.Errorf("device scope %q, want %q", edge.DeviceScope, want)
	}
	modules, err := s.Modules("edge")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range modules {
		got = append(got, m.ID.String())
	}
	if diff := cmp.Diff([]string{"edge/$edgeAgent", "edge/$edgeHub"}, got); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

func TestADeviceHasAtMost50Modules(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	wiretest.Create(t, s, hub.ID{Device: "d"}, hub.IdentitySpec{})
	for i := range 50 {
		wiretest.Create(t, s, hub.ID{Device: "d", Module: fmt.Sprintf("m%d", i)}, hub.IdentitySpec{})
	}
	if _, err := s.PutIdentity(hub.ID{Device: "d", Module: "one-more"}, hub.IdentitySpec{}, hub.Match{}); !errors.Is(err, hub.ErrTooManyModules) {
		t.Errorf("module 51: %v, want %v", err, hub.ErrTooManyModules)
	}
	if err := s.DeleteIdentity(hub.ID{Device: "d"}, hub.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Twin(hub.ID{Device: "d", Module: "m7"}); !errors.Is(err, hub.ErrDeviceNotFound) {
		t.Errorf("twin of a module whose device is gone: %v, want %v", err, hub.ErrDeviceNotFound)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	id := hub.ID{Device: "d"}
	s, err := node.New(node.Options{Storage: node.Folder(dir)})
	if err != nil {
		t.Fatal(err)
	}
	want := wiretest.Create(t, s, id, hub.IdentitySpec{})
	if _, err := s.PatchReported(id, []byte(`{"rebootTime":"2026-01-01T00:00:00Z"}`), hub.AnyVersion); err != nil {
		t.Fatal(err)
	}
	twin, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = wiretest.NewNode(t, node.Options{Storage: node.Folder(dir)})
	got, err := s.Identity(id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity after a restart (-want +got):\n%s", diff)
	}
	again, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(jsonText(t, twin), jsonText(t, again)); diff != "" {
		t.Errorf("twin after a restart (-want +got):\n%s", diff)
	}
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
