package hubrest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// provisioningOptions are those of a client whose service is srv.
func provisioningOptions(srv *httptest.Server) hubrest.Options {
	o := options(srv)
	o.ConnectionString = sas.ConnectionString{HostName: "My-DPS.azure-devices-provisioning.net", SharedAccessKeyName: "provisioningserviceowner", SharedAccessKey: ownerKey}
	return o
}

// newProvisioning is newClient for a provisioning service.
func newProvisioning(t *testing.T, h http.HandlerFunc) *hubrest.ProvisioningClient {
	t.Helper()
	c, err := hubrest.NewProvisioning(provisioningOptions(newServer(t, h)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.SetWait(func(ctx context.Context, _ time.Duration) error { return ctx.Err() })
	return c
}

// The body of an enrollment group is the one that the article "Tutorial: Use custom allocation policies with DPS" shows,
// but for the keys.
const groupBody = `{
  "enrollmentGroupId": "contoso-custom-allocated-devices",
  "attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": "AAAAAAAAAAAAAAAAAAAAAA==", "secondaryKey": "AAAAAAAAAAAAAAAAAAAAAQ=="}},
  "capabilities": {"iotEdge": false},
  "etag": "\"13003fea-0000-0300-0000-62d1d5e50000\"",
  "provisioningStatus": "enabled",
  "reprovisionPolicy": {"updateHubAssignment": true, "migrateDeviceData": true},
  "createdDateTimeUtc": "2022-07-05T21:27:16.8123235Z",
  "lastUpdatedDateTimeUtc": "2022-07-15T21:02:29.5922255Z",
  "allocationPolicy": "custom",
  "iotHubs": ["contoso-toasters-hub.azure-devices.net", "contoso-heatpumps-hub.azure-devices.net"],
  "customAllocationDefinition": {"webhookUrl": "https://contoso-function-app.azurewebsites.net/api/HttpTrigger1", "apiVersion": "2021-10-01"},
  "unknownToThisClient": {"a": 1}
}`

const registrationBody = `{"registrationId":"dev-1","createdDateTimeUtc":"2020-04-10T03:11:13.0276997Z","assignedHub":"contoso.azure-devices.net","deviceId":"dev-1",
  "status":"assigned","substatus":"initialAssignment","lastUpdatedDateTimeUtc":"2020-04-10T03:11:13.2096201Z","etag":"IjYxMDA4ZDQ2LTAwMDAtMDEwMC0wMDAwLTVlOGZlM2QxMDAwMCI=","payload":{"n":1.10}}`

func TestAnEnrollmentIsReadAsTheServiceWritesIt(t *testing.T) {
	c := newProvisioning(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, groupBody) })
	got, err := c.Enrollment(t.Context(), hubrest.Group, "contoso-custom-allocated-devices")
	if err != nil {
		t.Fatal(err)
	}
	want := hubrest.Enrollment{
		GroupID: "contoso-custom-allocated-devices",
		Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey, SymmetricKey: &hubrest.SymmetricKey{
			PrimaryKey: "AAAAAAAAAAAAAAAAAAAAAA==", SecondaryKey: "AAAAAAAAAAAAAAAAAAAAAQ=="}},
		ETag:               `"13003fea-0000-0300-0000-62d1d5e50000"`,
		ProvisioningStatus: hubrest.Enabled,
		ReprovisionPolicy:  &hubrest.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true},
		Created:            hubrest.Time{Time: time.Date(2022, 7, 5, 21, 27, 16, 812323500, time.UTC)},
		LastUpdated:        hubrest.Time{Time: time.Date(2022, 7, 15, 21, 2, 29, 592225500, time.UTC)},
		AllocationPolicy:   hubrest.CustomAllocating,
		IoTHubs:            []string{"contoso-toasters-hub.azure-devices.net", "contoso-heatpumps-hub.azure-devices.net"},
		CustomAllocation:   &hubrest.CustomAllocation{WebhookURL: "https://contoso-function-app.azurewebsites.net/api/HttpTrigger1", APIVersion: "2021-10-01"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Enrollment (-want +got):\n%s", diff)
	}
	if got.ID() != "contoso-custom-allocated-devices" || got.Kind() != hubrest.Group {
		t.Errorf("%s %q", got.Kind(), got.ID())
	}
}

// An exchange is a call and the request that it has to make.
type exchange struct {
	name   string
	call   func(context.Context, *hubrest.ProvisioningClient) error
	answer string

	request, ifMatch, body string
}

func TestCallsAreTheRequestsOfTheService(t *testing.T) {
	device := hubrest.Enrollment{RegistrationID: "dev 1", Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey, SymmetricKey: &hubrest.SymmetricKey{}}}
	tests := []exchange{
		{"get", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.Enrollment(ctx, hubrest.Individual, "dev 1")
			return err
		}, `{}`, "GET /enrollments/dev%201", "", ""},
		{"get a group", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.Enrollment(ctx, hubrest.Group, "g")
			return err
		}, `{}`, "GET /enrollmentGroups/g", "", ""},
		{"keys", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			a, err := c.AttestationMechanism(ctx, hubrest.Group, "g")
			if err == nil && a.SymmetricKey.PrimaryKey != "AAAAAAAAAAAAAAAAAAAAAA==" {
				err = errors.New("another key")
			}
			return err
		}, `{"type":"symmetricKey","symmetricKey":{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA==","secondaryKey":"AAAAAAAAAAAAAAAAAAAAAQ=="}}`,
			"POST /enrollmentGroups/g/attestationmechanism", "", ""},
		{"create", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			e := device
			e.ETag = "of another"
			_, err := c.CreateEnrollment(ctx, e)
			return err
		}, `{}`, "PUT /enrollments/dev%201", "",
			`{"registrationId":"dev 1","attestation":{"type":"symmetricKey","symmetricKey":{}},"capabilities":{"iotEdge":false}}`},
		{"update what is there", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.UpdateEnrollment(ctx, device)
			return err
		}, `{}`, "PUT /enrollments/dev%201", "*",
			`{"registrationId":"dev 1","attestation":{"type":"symmetricKey","symmetricKey":{}},"capabilities":{"iotEdge":false}}`},
		{"update by etag", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.UpdateEnrollment(ctx, hubrest.Enrollment{GroupID: "g", ETag: `"13003fea"`, Attestation: hubrest.Attestation{Type: hubrest.ByX509,
				X509: &hubrest.X509Attestation{CAReferences: &hubrest.CAReferences{Primary: "factory"}}},
				InitialTwin: &hubrest.InitialTwin{Tags: json.RawMessage(`{"z":1.0,"a":"<&>"}`)}, ReprovisionPolicy: &hubrest.ReprovisionPolicy{}})
			return err
		}, `{}`, "PUT /enrollmentGroups/g", `"13003fea"`,
			`{"enrollmentGroupId":"g","attestation":{"type":"x509","x509":{"caReferences":{"primary":"factory"}}},"capabilities":{"iotEdge":false},` +
				`"initialTwin":{"tags":{"z":1.0,"a":"<&>"}},"reprovisionPolicy":{"updateHubAssignment":false,"migrateDeviceData":false},"etag":"\"13003fea\""}`},
		{"delete", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			return c.DeleteEnrollment(ctx, hubrest.Individual, "dev 1", "")
		}, "", "DELETE /enrollments/dev%201", "", ""},
		{"delete by etag", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			return c.DeleteEnrollment(ctx, hubrest.Group, "g", "abc")
		}, "", "DELETE /enrollmentGroups/g", `"abc"`, ""},
		{"bulk", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			got, err := c.BulkEnrollments(ctx, hubrest.Group, hubrest.BulkCreate, []hubrest.Enrollment{{GroupID: "g"}})
			want := hubrest.EnrollmentBulkResult{Errors: []hubrest.EnrollmentBulkError{{ID: "g", Code: 409002, Message: "there"}}}
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				err = errors.New(diff)
			}
			return err
		}, `{"isSuccessful":false,"errors":[{"enrollmentGroupId":"g","errorCode":409002,"errorStatus":"there"}]}`, "POST /enrollmentGroups", "",
			`{"enrollmentGroups":[{"enrollmentGroupId":"g","capabilities":{"iotEdge":false}}],"mode":"create"}`},
		{"registration", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			got, err := c.Registration(ctx, "dev-1")
			want := hubrest.Registration{RegistrationID: "dev-1", DeviceID: "dev-1", AssignedHub: "contoso.azure-devices.net", Status: hubrest.Assigned, Substatus: "initialAssignment",
				Created:     hubrest.Time{Time: time.Date(2020, 4, 10, 3, 11, 13, 27699700, time.UTC)},
				LastUpdated: hubrest.Time{Time: time.Date(2020, 4, 10, 3, 11, 13, 209620100, time.UTC)},
				ETag:        "IjYxMDA4ZDQ2LTAwMDAtMDEwMC0wMDAwLTVlOGZlM2QxMDAwMCI=", Payload: json.RawMessage(`{"n":1.10}`)}
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				err = errors.New(diff)
			}
			return err
		}, registrationBody, "GET /registrations/dev-1", "", ""},
		{"forget a registration", func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			return c.DeleteRegistration(ctx, "dev-1", "")
		}, "", "DELETE /registrations/dev-1", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			c := newProvisioning(t, func(w http.ResponseWriter, req *http.Request) {
				rec.add(req)
				if tt.answer == "" {
					w.WriteHeader(http.StatusNoContent)
				}
				io.WriteString(w, tt.answer)
			})
			if err := tt.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if rec.count() != 1 {
				t.Fatalf("%d requests", rec.count())
			}
			req := rec.seen[0]
			got := []string{req.Method + " " + req.URL.EscapedPath(), req.URL.RawQuery, req.Header.Get("If-Match"), rec.body[0]}
			if diff := cmp.Diff([]string{tt.request, "api-version=2021-10-01", tt.ifMatch, tt.body}, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
			token, err := sas.ParseToken(req.Header.Get("Authorization"))
			if err != nil || !token.SignedBy(ownerKey) || token.Resource != "my-dps.azure-devices-provisioning.net" || token.Policy != "provisioningserviceowner" {
				t.Errorf("Authorization: %v, %v", token, err)
			}
		})
	}
}

func TestEnrollmentsGoFromPageToPage(t *testing.T) {
	var rec recorder
	c := newProvisioning(t, func(w http.ResponseWriter, req *http.Request) {
		rec.add(req)
		w.Header().Set("x-ms-item-type", "enrollment")
		if req.Header.Get("x-ms-continuation") == "" {
			w.Header().Set("x-ms-continuation", "two")
			io.WriteString(w, `[{"registrationId":"a"},{"registrationId":"b"}]`)
			return
		}
		io.WriteString(w, `[{"registrationId":"c","registrationState":`+registrationBody+`}]`)
	})
	var got []string
	for e, err := range c.Enrollments(t.Context(), hubrest.Individual, 2) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID())
		if e.ID() == "c" && e.RegistrationState.AssignedHub != "contoso.azure-devices.net" {
			t.Errorf("registration %+v", e.RegistrationState)
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
		t.Errorf("Enrollments (-want +got):\n%s", diff)
	}
	for n, req := range rec.seen {
		if req.URL.Path != "/enrollments/query" || rec.body[n] != `{"query":"SELECT * FROM enrollments"}` || req.Header.Get("x-ms-max-item-count") != "2" {
			t.Errorf("request %d: %s %s, %s", n, req.URL.Path, rec.body[n], req.Header.Get("x-ms-max-item-count"))
		}
	}
	for r, err := range c.Registrations(t.Context(), "g", 0) {
		if err != nil {
			t.Fatal(err)
		}
		_ = r
	}
	if got := rec.seen[2].URL.Path; got != "/registrations/g/query" {
		t.Errorf("Registrations asks for %s", got)
	}
}

func TestRefusalsOfTheProvisioningService(t *testing.T) {
	tests := []struct {
		status int
		body   string
		is     error
		text   string
	}{
		{404, `{"errorCode":404201,"trackingId":"6a5b","message":"Enrollment not found","timestampUtc":"2020-04-10T03:11:13.0276997Z"}`, hubrest.ErrNotFound,
			`get enrollment "d": the provisioning service answered 404 Not Found (404201): Enrollment not found`},
		{401, `{"errorCode":401002,"trackingId":"6a5b","message":"Unauthorized","timestampUtc":"2020-04-10T03:11:13Z"}`, hubrest.ErrUnauthorized,
			`get enrollment "d": the provisioning service answered 401 Unauthorized (401002): Unauthorized`},
		{412, `{"errorCode":412001,"message":"Precondition failed"}`, hubrest.ErrPreconditionFailed,
			`get enrollment "d": the provisioning service answered 412 Precondition Failed (412001): Precondition failed`},
		{409, `{"errorCode":409002,"message":"there is one"}`, hubrest.ErrAlreadyExists,
			`get enrollment "d": the provisioning service answered 409 Conflict (409002): there is one`},
		{302, "", nil, `get enrollment "d": the provisioning service answered 302 Found: a redirect, which it never sends; is this the provisioning service?`},
		{400, "<html>\n<b>no</b>", nil, `get enrollment "d": the provisioning service answered 400 Bad Request: <html> <b>no</b>`},
		{200, "[]", nil, `get enrollment "d": the provisioning service's answer (200) is not as documented: json: cannot unmarshal array into Go value of type hubrest.Enrollment`},
	}
	for _, tt := range tests {
		t.Run(http.StatusText(tt.status), func(t *testing.T) {
			c := newProvisioning(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			})
			_, err := c.Enrollment(t.Context(), hubrest.Individual, "d")
			if err == nil || err.Error() != tt.text {
				t.Errorf("error %v, want %s", err, tt.text)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v is not %v", err, tt.is)
			}
		})
	}
}
