package hub_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
	"github.com/iotdm/iotdm/hub/node"
)

func TestTwinOfANewDeviceAndAfterAPatch(t *testing.T) {
	now := time.Date(2020, 7, 28, 22, 17, 23, 675682200, time.UTC)
	s := wiretest.NewNode(t, node.Options{Clock: clock.Stopped(now)})
	id := hub.ID{Device: "dev1"}
	i := wiretest.Create(t, s, id, hub.IdentitySpec{})
	v, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"deviceId":"dev1","etag":"AAAAAAAAAAE=","deviceEtag":"` + i.ETag() + `","status":"enabled",` +
		`"statusUpdateTime":"0001-01-01T00:00:00Z","connectionState":"Disconnected","lastActivityTime":"0001-01-01T00:00:00Z",` +
		`"cloudToDeviceMessageCount":0,"authenticationType":"sas","x509Thumbprint":{"primaryThumbprint":null,"secondaryThumbprint":null},` +
		`"modelId":"","version":2,"properties":{"desired":{"$metadata":{"$lastUpdated":"2020-07-28T22:17:23.6756822Z"},"$version":1},` +
		`"reported":{"$metadata":{"$lastUpdated":"2020-07-28T22:17:23.6756822Z"},"$version":1}},"capabilities":{"iotEdge":false}}`
	if diff := cmp.Diff(want, jsonText(t, v)); diff != "" {
		t.Errorf("new twin (-want +got):\n%s", diff)
	}

	v, err = s.PatchTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"username":"userA"}`)}, hub.Match{ETag: v.ETag()})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		ETag       string
		Version    int
		Properties struct{ Desired json.RawMessage }
	}
	if err := json.Unmarshal([]byte(jsonText(t, v)), &got); err != nil {
		t.Fatal(err)
	}
	stamp := `{"$lastUpdated":"2020-07-28T22:17:23.6756822Z","$lastUpdatedVersion":2`
	wantDesired := `{"username":"userA","$metadata":` + stamp + `,"username":` + stamp + `}},"$version":2}`
	if got.ETag != "AAAAAAAAAAI=" || got.Version != 3 || string(got.Properties.Desired) != wantDesired {
		t.Errorf("twin after a patch:\n%+v\nwant etag AAAAAAAAAAI=, version 3, desired %s", got, wantDesired)
	}
}

func TestTwinWritesThatAreRefusedChangeNothing(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "d"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	before, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		write func() error
		want  error
	}{
		"a stale etag": {func() error {
			_, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"a":1}`)}, hub.Match{ETag: "AAAAAAAAAAk="})
			return err
		}, hub.ErrPreconditionFailed},
		"tags that are no object": {func() error {
			_, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`[1]`)}, hub.Match{})
			return err
		}, hub.ErrArgumentInvalid},
		"good tags with a bad desired section": {func() error {
			_, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"a":1}`), Desired: json.RawMessage(`{"a.b":1}`)}, hub.Match{})
			return err
		}, hub.ErrArgumentInvalid},
		"a reported name with a hash": {func() error {
			_, err := s.PatchReported(id, []byte(`{"a#b":1}`), hub.AnyVersion)
			return err
		}, hub.ErrArgumentInvalid},
		"null among tags that replace others": {func() error {
			_, err := s.ReplaceTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"a":{"b":null}}`)}, hub.Match{})
			return err
		}, hub.ErrArgumentInvalid},
		"null among desired properties that replace others": {func() error {
			_, err := s.ReplaceTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"a":null}`)}, hub.Match{})
			return err
		}, hub.ErrArgumentInvalid},
		"a reported patch that is not JSON": {func() error {
			_, err := s.PatchReported(id, []byte(`{"a":`), hub.AnyVersion)
			return err
		}, hub.ErrArgumentInvalid},
		"a reported patch for another version": {func() error {
			_, err := s.PatchReported(id, []byte(`{"a":1}`), 7)
			return err
		}, hub.ErrPreconditionFailed},
		"a device that does not exist": {func() error {
			_, err := s.PatchReported(hub.ID{Device: "none"}, []byte(`{"a":1}`), hub.AnyVersion)
			return err
		}, hub.ErrDeviceNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.write(); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			after, err := s.Twin(id)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(jsonText(t, before), jsonText(t, after)); diff != "" {
				t.Errorf("twin (-before +after):\n%s", diff)
			}
		})
	}
}

func TestReportedLeavesTheETagAlone(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	id := hub.ID{Device: "d"}
	wiretest.Create(t, s, id, hub.IdentitySpec{})
	before, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.PatchReported(id, []byte(`{"a":1}`), 1); err != nil || v != 2 {
		t.Fatalf("PatchReported = %d, %v; want version 2", v, err)
	}
	after, err := s.Twin(id)
	if err != nil {
		t.Fatal(err)
	}
	if after.ETag() != before.ETag() {
		t.Errorf("etag %s became %s; a service's conditional write would fail for nothing", before.ETag(), after.ETag())
	}
	doc, err := s.DeviceTwin(id)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"desired":{"$version":1},"reported":{"a":1,"$version":2}}`; string(doc) != want {
		t.Errorf("device's view %s, want %s", doc, want)
	}
}

// A hub that did not refuse "#" may have stored it. Such a twin can be read,
// changed, and rid of it in every way.
func TestATwinOfAnOlderHubMayHoldAHash(t *testing.T) {
	s := wiretest.NewNode(t, node.Options{})
	for name, tt := range map[string]struct {
		write func(hub.ID) error
		want  string // the twin as its device sees it
	}{
		"another property changes": {func(id hub.ID) error {
			_, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"b":1}`), Desired: json.RawMessage(`{"b":1}`)}, hub.Match{})
			return err
		}, `{"desired":{"a#":1,"b":1,"$version":2},"reported":{"a#":1,"$version":1}}`},
		"a patch removes it": {func(id hub.ID) error {
			_, err := s.PatchTwin(id, hub.TwinChange{Tags: json.RawMessage(`{"a#":null}`), Desired: json.RawMessage(`{"a#":null}`)}, hub.Match{})
			return err
		}, `{"desired":{"$version":2},"reported":{"a#":1,"$version":1}}`},
		"the device removes it": {func(id hub.ID) error {
			_, err := s.PatchReported(id, []byte(`{"a#":null}`), hub.AnyVersion)
			return err
		}, `{"desired":{"a#":1,"$version":1},"reported":{"$version":2}}`},
		"all is cleared": {func(id hub.ID) error {
			_, err := s.PatchTwin(id, hub.TwinChange{ClearDesired: true}, hub.Match{})
			return err
		}, `{"desired":{"$version":2},"reported":{"a#":1,"$version":1}}`},
		"all is replaced": {func(id hub.ID) error {
			_, err := s.ReplaceTwin(id, hub.TwinChange{Desired: json.RawMessage(`{"b":1}`)}, hub.Match{})
			return err
		}, `{"desired":{"b":1,"$version":2},"reported":{"a#":1,"$version":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			id := hub.ID{Device: strings.ReplaceAll(name, " ", "-")}
			wiretest.Create(t, s, id, hub.IdentitySpec{})
			err := s.Update(id.Device, func(tx *hub.Tx) error {
				twin, err := tx.Twin(id)
				twin.Tags = json.RawMessage(`{"a#":1}`)
				twin.Desired.Properties, twin.Reported.Properties = twin.Tags, twin.Tags
				tx.PutTwin(id, &twin, hub.TwinWrite{Tags: twin.Tags})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.write(id); err != nil {
				t.Errorf("error %v", err)
			}
			doc, err := s.DeviceTwin(id)
			if err != nil || string(doc) != tt.want {
				t.Errorf("device's view %s, %v, want %s", doc, err, tt.want)
			}
		})
	}
}
