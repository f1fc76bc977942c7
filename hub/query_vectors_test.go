package hub

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/internal/disk"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// The vectors of package query are answered from the hub's store: every field of
// a twin is where a query looks for it.

type queryVectors struct {
	Twins      []vectorTwin
	DeviceJobs []json.RawMessage
	Cases      []struct {
		Name, Query string
		Expect      struct {
			IDs   *[]string
			Items *[]any
			Error string
		}
	}
}

type vectorTwin struct {
	document json.RawMessage

	DeviceID, ModuleID string
	ETag, DeviceETag   string
	Status             Status
	StatusReason       *string
	StatusUpdateTime   time.Time
	ConnectionState    string
	LastActivityTime   time.Time
	AuthenticationType AuthType
	X509Thumbprint     X509Thumbprint
	ModelID            string
	Version            int64
	Tags               json.RawMessage
	Properties         struct{ Desired, Reported json.RawMessage }
	Capabilities       Capabilities
	DeviceScope        string
	ParentScopes       []string
	Configurations     json.RawMessage
}

func (v *vectorTwin) UnmarshalJSON(data []byte) error {
	type plain vectorTwin
	v.document = slices.Clone(data)
	return json.Unmarshal(data, (*plain)(v))
}

// section takes a section of a document apart.
func section(t *testing.T, doc json.RawMessage) (s twin.Section) {
	t.Helper()
	var parts struct {
		Metadata json.RawMessage `json:"$metadata"`
		Version  int64           `json:"$version"`
	}
	if err := json.Unmarshal(doc, &parts); err != nil {
		t.Fatal(err)
	}
	properties, err := twin.StripReadOnly(doc)
	if err != nil {
		t.Fatal(err)
	}
	return twin.Section{Properties: properties, Metadata: parts.Metadata, Version: parts.Version}
}

func number(t *testing.T, base64Text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(base64Text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seed stores a twin of the vectors as it is.
func (v *vectorTwin) seed(t *testing.T, s *Server) {
	t.Helper()
	id := ID{Device: v.DeviceID, Module: v.ModuleID}
	version, err := strconv.ParseUint(string(number(t, v.DeviceETag)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	i := Identity{
		ID: id, Version: version, Status: v.Status, StatusReason: v.StatusReason, StatusUpdated: v.StatusUpdateTime,
		Auth: Authentication{Type: v.AuthenticationType, X509: v.X509Thumbprint}, IoTEdge: v.Capabilities.IoTEdge,
		DeviceScope: v.DeviceScope, ParentScopes: v.ParentScopes,
	}
	record := Twin{
		etag: binary.BigEndian.Uint64(number(t, v.ETag)), version: v.Version, ModelID: v.ModelID, Tags: v.Tags,
		Desired: section(t, v.Properties.Desired), Reported: section(t, v.Properties.Reported),
		Configurations: v.Configurations,
	}
	if record.Tags == nil {
		record.Tags = json.RawMessage("{}")
	}
	err = s.store.Update("", func(tx *store.Tx) error {
		record.store(tx, id)
		put(tx, i)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.links.mu.Lock()
	defer s.links.mu.Unlock()
	if v.ConnectionState == "Connected" {
		last := v.LastActivityTime
		if last.IsZero() {
			last = time.Unix(0, 0)
		}
		s.links.byID[id] = &quietLink{id: id, last: last}
	} else {
		s.links.activity[id] = activity{Last: v.LastActivityTime}
	}
}

func readQueryVectors(t *testing.T) (v queryVectors) {
	t.Helper()
	data, err := os.ReadFile("query/testdata/query.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func newVectorServer(t *testing.T, v queryVectors) *Server {
	t.Helper()
	s, end := open(t, "", nil)
	t.Cleanup(end)
	for i := range v.Twins {
		v.Twins[i].seed(t, s)
	}
	err := s.store.Update("", func(tx *store.Tx) error {
		for _, doc := range v.DeviceJobs {
			var row struct{ DeviceID, JobID string }
			if err := json.Unmarshal(doc, &row); err != nil {
				return err
			}
			tx.Set(disk.Of(disk.JobRow, row.JobID, row.DeviceID), doc)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// queryAll returns the rows of all pages.
func queryAll(t *testing.T, s *Server, text string, size int) (rows []any, err error) {
	t.Helper()
	rows = []any{}
	continuation := ""
	for {
		page, err := s.Query(t.Context(), text, size, continuation)
		if err != nil {
			return nil, err
		}
		var some []any
		if err := json.Unmarshal(page.Body, &some); err != nil {
			t.Fatalf("page %s: %v", page.Body, err)
		}
		if len(some) != page.Rows || page.Rows > size || page.Rows == 0 && continuation != "" {
			t.Errorf("%s: page of %d rows, said to be %d, at most %d", text, len(some), page.Rows, size)
		}
		rows = append(rows, some...)
		if continuation = page.Continuation; continuation == "" {
			return rows, nil
		}
	}
}

func TestQueryVectorsFromTheStore(t *testing.T) {
	v := readQueryVectors(t)
	s := newVectorServer(t, v)
	sortRows := cmpopts.SortSlices(func(a, b any) bool { return string(words.MustMarshal(a)) < string(words.MustMarshal(b)) })
	for _, c := range v.Cases {
		t.Run(c.Name, func(t *testing.T) {
			rows, err := queryAll(t, s, c.Query, 2)
			if c.Expect.Error != "" {
				want := map[string]error{"ArgumentNull": ErrArgumentNull, "QueryTooLong": ErrPreconditionFailed}[c.Expect.Error]
				if want == nil {
					want = ErrArgumentInvalid
				}
				if !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := c.Expect.Items
			if c.Expect.IDs != nil {
				want = &[]any{}
				for _, id := range *c.Expect.IDs {
					*want = append(*want, id)
				}
				for i, row := range rows {
					rows[i] = rowID(row.(map[string]any))
				}
			}
			if diff := cmp.Diff(*want, rows, sortRows, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.Query, diff)
			}
		})
	}
}

func rowID(row map[string]any) string {
	id, _ := row["deviceId"].(string)
	for _, second := range []string{"moduleId", "jobId"} {
		if text, ok := row[second].(string); ok {
			id += "/" + text
		}
	}
	return id
}

// Every member that the document of a twin has is a field that a query finds,
// with the same value, and every part of one.
func TestQueriesSeeWhatTheDocumentShows(t *testing.T) {
	v := readQueryVectors(t)
	s := newVectorServer(t, v)
	for i := range v.Twins {
		vector := &v.Twins[i]
		from, where := "devices", " WHERE deviceId = '"+vector.DeviceID+"'"
		if vector.ModuleID != "" {
			from, where = "devices.modules", where+" AND moduleId = '"+vector.ModuleID+"'"
		}
		var want map[string]any
		if err := json.Unmarshal(vector.document, &want); err != nil {
			t.Fatal(err)
		}
		want["cloudToDeviceMessageCount"] = 0.0 // none were sent
		if vector.ConnectionState == "Connected" && vector.LastActivityTime.IsZero() {
			want["lastActivityTime"] = "1970-01-01T00:00:00Z" // a connection was heard of
		}
		rows, err := queryAll(t, s, "SELECT * FROM "+from+where, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{want}, rows); diff != "" {
			t.Errorf("document (-want +got):\n%s", diff)
		}
		var columns []string
		result := map[string]any{}
		add := func(path string, value any, ok bool) {
			columns = append(columns, path+" AS [["+path+"]]")
			if ok {
				result[path] = value
			}
		}
		for _, name := range []string{
			"deviceId", "moduleId", "etag", "deviceEtag", "status", "statusReason", "statusUpdateTime", "connectionState",
			"lastActivityTime", "cloudToDeviceMessageCount", "authenticationType", "x509Thumbprint", "modelId", "version",
			"tags", "properties", "capabilities", "deviceScope", "parentScopes", "configurations",
		} {
			value, ok := want[name]
			add(name, value, ok)
		}
		properties := want["properties"].(map[string]any)
		for _, name := range []string{"desired", "reported"} {
			doc := properties[name].(map[string]any)
			add("properties."+name, doc, true)
			for member, value := range doc {
				add("properties."+name+"."+member, value, true)
			}
		}
		rows, err = queryAll(t, s, "SELECT "+strings.Join(columns, ", ")+" FROM "+from+where, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{result}, rows); diff != "" {
			t.Errorf("%s/%s by field (-want +got):\n%s", vector.DeviceID, vector.ModuleID, diff)
		}
	}
}
