package hubrest_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hubrest"
)

// newHubProvisioning returns a client of the provisioning service of a real hub.
func newHubProvisioning(t *testing.T, h *hubtest.Hub, policy string) *hubrest.ProvisioningClient {
	t.Helper()
	c, err := hubrest.NewProvisioning(hubrest.Options{ConnectionString: h.Policy(policy), TLS: h.ClientTLS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestARealHubKeepsEnrollments(t *testing.T) {
	c := newHubProvisioning(t, hubtest.New(t), "provisioningserviceowner")
	for _, kind := range []hubrest.EnrollmentKind{hubrest.Individual, hubrest.Group} {
		t.Run(string(kind), func(t *testing.T) {
			ctx := t.Context()
			ask := hubrest.Enrollment{RegistrationID: "Dev-1", DeviceID: "pump"}
			if kind == hubrest.Group {
				ask = hubrest.Enrollment{GroupID: "Dev-1"}
			}
			ask.Attestation = hubrest.Attestation{Type: hubrest.BySymmetricKey, SymmetricKey: &hubrest.SymmetricKey{}}
			ask.InitialTwin = &hubrest.InitialTwin{Tags: json.RawMessage(`{"z":"<A&B>","a":1.10}`)}
			created, err := c.CreateEnrollment(ctx, ask)
			if err != nil {
				t.Fatal(err)
			}
			if created.ID() != "Dev-1" || created.Kind() != kind || created.ETag == "" || created.ProvisioningStatus != hubrest.Enabled || created.DeviceID != ask.DeviceID {
				t.Errorf("created %s %q, etag %s, %s", created.Kind(), created.ID(), created.ETag, created.ProvisioningStatus)
			}
			if diff := cmp.Diff(ask.InitialTwin, created.InitialTwin); diff != "" {
				t.Errorf("initial twin (-want +got):\n%s", diff)
			}
			if err := created.Attestation.SymmetricKey.PrimaryKey.Validate(); err != nil {
				t.Errorf("key: %v", err)
			}
			if _, err := c.CreateEnrollment(ctx, ask); !errors.Is(err, hubrest.ErrAlreadyExists) {
				t.Errorf("CreateEnrollment again: %v, want ErrAlreadyExists", err)
			}
			keys, err := c.AttestationMechanism(ctx, kind, "dev-1")
			if diff := cmp.Diff(created.Attestation, keys); diff != "" || err != nil {
				t.Errorf("AttestationMechanism: %v (-created +got):\n%s", err, diff)
			}
			got, err := c.Enrollment(ctx, kind, "Dev-1")
			if diff := cmp.Diff(created, got, cmpopts.IgnoreFields(hubrest.Enrollment{}, "Attestation")); diff != "" || err != nil {
				t.Errorf("Enrollment: %v (-created +got):\n%s", err, diff)
			}

			change := got // without keys, which stay
			change.ProvisioningStatus, change.Capabilities.IoTEdge = hubrest.Disabled, true
			updated, err := c.UpdateEnrollment(ctx, change)
			if err != nil {
				t.Fatal(err)
			}
			if updated.ProvisioningStatus != hubrest.Disabled || !updated.Capabilities.IoTEdge || updated.ETag == got.ETag {
				t.Errorf("UpdateEnrollment: %s, edge %t, etag %s after %s", updated.ProvisioningStatus, updated.Capabilities.IoTEdge, updated.ETag, got.ETag)
			}
			if diff := cmp.Diff(created.Attestation, updated.Attestation); diff != "" {
				t.Errorf("keys after an update without any (-want +got):\n%s", diff)
			}
			if _, err := c.UpdateEnrollment(ctx, change); !errors.Is(err, hubrest.ErrPreconditionFailed) {
				t.Errorf("UpdateEnrollment with the old etag: %v, want ErrPreconditionFailed", err)
			}
			if err := c.DeleteEnrollment(ctx, kind, "Dev-1", got.ETag); !errors.Is(err, hubrest.ErrPreconditionFailed) {
				t.Errorf("DeleteEnrollment with the old etag: %v, want ErrPreconditionFailed", err)
			}
			if err := c.DeleteEnrollment(ctx, kind, "Dev-1", updated.ETag); err != nil {
				t.Error(err)
			}
			if err := c.DeleteEnrollment(ctx, kind, "Dev-1", ""); !errors.Is(err, hubrest.ErrNotFound) {
				t.Errorf("DeleteEnrollment again: %v, want ErrNotFound", err)
			}
			change.ETag = ""
			if _, err := c.UpdateEnrollment(ctx, change); !errors.Is(err, hubrest.ErrNotFound) && !errors.Is(err, hubrest.ErrPreconditionFailed) {
				t.Errorf("UpdateEnrollment of what is not there: %v", err)
			}
		})
	}
}

func TestARealHubListsEnrollmentsPageByPage(t *testing.T) {
	ctx := t.Context()
	c := newHubProvisioning(t, hubtest.New(t), "provisioningserviceowner")
	want := []string{"a", "b", "c", "d", "e"}
	var list []hubrest.Enrollment
	for _, id := range want {
		list = append(list, hubrest.Enrollment{RegistrationID: id, Attestation: hubrest.Attestation{Type: hubrest.BySymmetricKey}})
	}
	result, err := c.BulkEnrollments(ctx, hubrest.Individual, hubrest.BulkCreate, list)
	if err != nil || !result.IsSuccessful {
		t.Fatal(result, err)
	}
	result, err = c.BulkEnrollments(ctx, hubrest.Individual, hubrest.BulkCreate, list[4:])
	if err != nil || result.IsSuccessful || len(result.Errors) != 1 || result.Errors[0].ID != "e" || result.Errors[0].Code/1000 != 409 {
		t.Errorf("BulkEnrollments again: %+v, %v", result, err)
	}
	var got []string
	for e, err := range c.Enrollments(ctx, hubrest.Individual, 2) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Enrollments (-want +got):\n%s", diff)
	}
	if result, err = c.BulkEnrollments(ctx, hubrest.Individual, hubrest.BulkDelete, list); err != nil || !result.IsSuccessful {
		t.Error(result, err)
	}
	for e, err := range c.Enrollments(ctx, hubrest.Individual, 0) {
		t.Error("left:", e.ID(), err)
	}
}

func TestARealHubKeepsPoliciesApart(t *testing.T) {
	h := hubtest.New(t)
	h.Device("dev1")
	if _, err := newHubProvisioning(t, h, "iothubowner").Enrollment(t.Context(), hubrest.Individual, "d"); !errors.Is(err, hubrest.ErrUnauthorized) {
		t.Errorf("Enrollment with the policy iothubowner: %v, want ErrUnauthorized", err)
	}
	if _, err := newHubClient(t, h, "provisioningserviceowner").Device(t.Context(), "dev1"); !errors.Is(err, hubrest.ErrUnauthorized) {
		t.Errorf("Device with the policy provisioningserviceowner: %v, want ErrUnauthorized", err)
	}
	c := newHubProvisioning(t, h, "provisioningserviceowner")
	if _, err := c.Registration(t.Context(), "nobody"); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("Registration of nobody: %v, want ErrNotFound", err)
	}
	if err := c.DeleteRegistration(t.Context(), "nobody", ""); !errors.Is(err, hubrest.ErrNotFound) {
		t.Errorf("DeleteRegistration of nobody: %v, want ErrNotFound", err)
	}
}
