package hubrest_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hubrest"
)

func TestProvisioningRequestsAreRepeatedWhereThatIsSafe(t *testing.T) {
	byETag := hubrest.Enrollment{RegistrationID: "d", ETag: "1"}
	tests := []struct {
		name  string
		fails int // the status of the first answer
		want  int // requests
		call  func(context.Context, *hubrest.ProvisioningClient) error
	}{
		{"a conditional update, throttled", 429, 2, func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.UpdateEnrollment(ctx, byETag)
			return err
		}},
		{"a conditional update, which may have been made", 503, 1, func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.UpdateEnrollment(ctx, byETag)
			return err
		}},
		{"an unconditional update", 503, 2, func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.UpdateEnrollment(ctx, hubrest.Enrollment{RegistrationID: "d"})
			return err
		}},
		{"a read by POST", 503, 2, func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.AttestationMechanism(ctx, hubrest.Individual, "d")
			return err
		}},
		{"bulk create", 503, 1, func(ctx context.Context, c *hubrest.ProvisioningClient) error {
			_, err := c.BulkEnrollments(ctx, hubrest.Individual, hubrest.BulkCreate, nil)
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var rec recorder
			c := newProvisioning(t, func(w http.ResponseWriter, req *http.Request) {
				if rec.add(req) == 1 {
					w.WriteHeader(tt.fails)
					return
				}
				io.WriteString(w, `{}`)
			})
			err := tt.call(t.Context(), c)
			if rec.count() != tt.want || (err != nil) != (tt.want == 1) {
				t.Errorf("%d requests, want %d; error %v", rec.count(), tt.want, err)
			}
		})
	}
}

// scopes is a credential that keeps what it was asked for.
type scopes []string

func (s *scopes) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	*s = append(*s, o.Scopes...)
	return azcore.AccessToken{Token: "t", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestTokensOfEntraIDAreForTheProvisioningService(t *testing.T) {
	var rec recorder
	o := provisioningOptions(newServer(t, func(w http.ResponseWriter, req *http.Request) { rec.add(req); io.WriteString(w, `{}`) }))
	asked := new(scopes)
	o.Credential = asked
	c, err := hubrest.NewProvisioning(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Registration(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(scopes{"https://azure-devices-provisioning.net/.default"}, *asked); diff != "" {
		t.Errorf("scopes (-want +got):\n%s", diff)
	}
	if got := rec.seen[0].Header.Get("Authorization"); got != "Bearer t" {
		t.Errorf("Authorization: %s", got)
	}
}
