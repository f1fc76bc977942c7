package bulk

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

func TestChangesOf(t *testing.T) {
	keys := func(primary, secondary sas.Key) hubrest.Authentication {
		return hubrest.Authentication{Type: hubrest.AuthSAS, SymmetricKey: hubrest.SymmetricKey{PrimaryKey: primary, SecondaryKey: secondary}}
	}
	edge := &hubrest.Capabilities{IoTEdge: true}
	now := hubrest.BulkEntry{
		ID: "d1", Status: hubrest.Disabled, StatusReason: "lent", Authentication: keys("A", "B"),
		Capabilities: &hubrest.Capabilities{},
		Tags:         json.RawMessage(`{"site":"north","at":{"row":1}}`),
		Properties:   hubrest.BulkProperties{Desired: json.RawMessage(`{"interval":60,"$metadata":{"$lastUpdated":"2026-01-01T00:00:00Z"},"$version":7}`)},
	}
	for _, tt := range []struct {
		name string
		now  hubrest.BulkEntry
		want hubrest.BulkEntry // the line
		text []string
	}{
		{"the same", now, now, nil},
		{"without keys these stay", now, hubrest.BulkEntry{ID: "d1", Status: hubrest.Disabled, StatusReason: "lent"}, nil},
		{"what is left out of the identity is reset", now, hubrest.BulkEntry{ID: "d1"},
			[]string{`status: "disabled" -> "enabled"`, `statusReason: "lent" -> (none)`}},
		{"other keys, which nobody sees", now, hubrest.BulkEntry{ID: "d1", Status: hubrest.Disabled, StatusReason: "lent", Authentication: keys("C", "B")},
			[]string{"primaryKey: another one"}},
		{"what is left out of the twin stays", now, hubrest.BulkEntry{ID: "d1", Status: hubrest.Disabled, StatusReason: "lent",
			Tags: json.RawMessage(`{"site":"south"}`), Properties: hubrest.BulkProperties{Desired: json.RawMessage(`{"led":{"color":"red"}}`)}},
			[]string{`tags.site: "north" -> "south"`, `desired.led: (none) -> {"color":"red"}`}},
		{"null deletes", now, hubrest.BulkEntry{ID: "d1", ImportMode: hubrest.ImportUpdateTwin, Tags: json.RawMessage(`{"at":{"row":null}}`)},
			[]string{`tags.at.row: 1 -> (none)`}},
		{"a twin alone", now, hubrest.BulkEntry{ID: "d1", ImportMode: hubrest.ImportUpdateTwin, Properties: hubrest.BulkProperties{Desired: json.RawMessage(`{"interval":5}`)}},
			[]string{`desired.interval: 60 -> 5`}},
		{"a twin without anything yet", hubrest.BulkEntry{ID: "d2"}, hubrest.BulkEntry{ID: "d2", ImportMode: hubrest.ImportUpdateTwin,
			Tags: json.RawMessage(`{"a":1}`), Properties: hubrest.BulkProperties{Desired: json.RawMessage(`{"b":2}`)}},
			[]string{`tags.a: (none) -> 1`, `desired.b: (none) -> 2`}},
		{"a certificate, its thumbprint in small letters", hubrest.BulkEntry{ID: "d1", Authentication: hubrest.Authentication{Type: hubrest.AuthSelfSigned, X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: "AB"}}},
			hubrest.BulkEntry{ID: "d1", Authentication: hubrest.Authentication{Type: hubrest.AuthSelfSigned, X509Thumbprint: hubrest.X509Thumbprint{PrimaryThumbprint: "ab"}}}, nil},
		{"a certificate instead of keys", hubrest.BulkEntry{ID: "d1"}, hubrest.BulkEntry{ID: "d1", Authentication: hubrest.Authentication{Type: hubrest.AuthCertificateAuthority}},
			[]string{`authentication: "sas" -> "certificateAuthority"`}},
		{"another parent", hubrest.BulkEntry{ID: "d1", ParentScopes: []string{"ms-azure-iot-edge://a-1"}}, hubrest.BulkEntry{ID: "d1", ParentScopes: []string{"ms-azure-iot-edge://b-2"}},
			[]string{`parent: "a" -> "b"`}},
		{"the same parent under another number", hubrest.BulkEntry{ID: "d1", ParentScopes: []string{"ms-azure-iot-edge://a-1"}}, hubrest.BulkEntry{ID: "d1", DeviceScope: "ms-azure-iot-edge://a-2"}, nil},
		{"an edge device's own scope is no parent", hubrest.BulkEntry{ID: "e", Capabilities: edge, DeviceScope: "ms-azure-iot-edge://e-1"}, hubrest.BulkEntry{ID: "e", Capabilities: edge}, nil},
		{"who manages a module", hubrest.BulkEntry{ID: "d1", ModuleID: "m", ManagedBy: "ops"}, hubrest.BulkEntry{ID: "d1", ModuleID: "m"},
			[]string{`managedBy: "ops" -> (none)`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changes, err := changesOf(tt.now, tt.want)
			if err != nil {
				t.Fatal(err)
			}
			var text []string
			for _, c := range changes {
				text = append(text, c.String())
			}
			if diff := cmp.Diff(tt.text, text); diff != "" {
				t.Errorf("changes of the line (-want +got):\n%s", diff)
			}
		})
	}
}

func TestQuestionNamesWhatIsTouched(t *testing.T) {
	for _, tt := range []struct {
		counts Counts
		want   string
	}{
		{Counts{Created: 5, Unchanged: 7, Failed: 2}, ""},
		{Counts{Updated: 1, Desired: 1}, "Change 1 identity (desired properties of 1); 0 of them connected"},
		{Counts{Created: 2, Updated: 12, Keys: 4, Identities: 2, Desired: 10, Tags: 5, Connected: 8},
			"Change 12 identities (keys of 4, status or other settings of 2, desired properties of 10, tags of 5) and create 2; 8 of them connected"},
		{Counts{Deleted: 3, Connected: 1}, "Delete 3 identities; 1 of them connected"},
		{Counts{Deleted: 3, Created: 1}, "Delete 3 identities and create 1; 0 of them connected"},
	} {
		if got := tt.counts.Question(); got != tt.want {
			t.Errorf("question of %+v is %q, want %q", tt.counts, got, tt.want)
		}
	}
}
