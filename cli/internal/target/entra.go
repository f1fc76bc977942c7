package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/iotdm/iotdm/cli/internal/output"
)

// What to do.
const (
	signIn       = "sign in with \"az login\", or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
	checkMachine = "check the managed identity of this machine, or sign in with \"az login\" and set AZURE_TOKEN_CREDENTIALS=dev"
)

// A NoTokenError says on one line why there is no token of Entra ID.
type NoTokenError struct {
	words   string
	Remedy  string // what to do
	Refused bool   // there is no credential, or Entra ID does not accept it
}

// Error returns the line.
func (e *NoTokenError) Error() string { return e.words }

// credential is whoever Azure's tools would take, with errors of one line.
type credential struct{ azcore.TokenCredential }

// newCredential returns the credential that azidentity finds in the environment
// and on this machine.
func newCredential(client *http.Client) (azcore.TokenCredential, error) {
	for _, name := range []string{"AZURE_TOKEN_CREDENTIALS", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"} {
		if os.Getenv(name) == "" {
			os.Unsetenv(name) // azidentity takes an empty one for an id or a file
		}
	}
	found, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: azcore.ClientOptions{Transport: client},
		// An authority that somebody has named is not one to ask Microsoft's about.
		DisableInstanceDiscovery: os.Getenv("AZURE_AUTHORITY_HOST") != "",
		TenantID:                 os.Getenv("AZURE_TENANT_ID"), // of who has signed in, too
	})
	if err != nil {
		return nil, errors.New(oneLine(withoutAdvice(err.Error())))
	}
	return credential{found}, nil
}

// GetToken asks for a token, and words what comes instead as a [NoTokenError].
func (c credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	token, err := c.TokenCredential.GetToken(ctx, o)
	switch {
	case err == nil:
		return token, nil
	case ctx.Err() != nil:
		return token, context.Cause(ctx)
	}
	return token, newNoTokenError(err)
}

// newNoTokenError makes one line of an error of azidentity, which has many.
func newNoTokenError(err error) *NoTokenError {
	attempts := attemptsOf(err)
	e := &NoTokenError{Remedy: signIn, Refused: true}
	failed, tried := errors.AsType[*azidentity.AuthenticationFailedError](err)
	switch {
	case tried && failed.RawResponse == nil && strings.Contains(strings.Join(attempts, "; "), "ManagedIdentity: "):
		e.Remedy, e.Refused = checkMachine, false
	case tried && failed.RawResponse == nil:
		e.Remedy, e.Refused = "check the variables AZURE_..., and the way to "+authority(), false
	case tried:
		attempts = append(attempts, describeResponse(failed.RawResponse))
		switch {
		case failed.RawResponse.StatusCode >= http.StatusInternalServerError:
			e.Remedy, e.Refused = "try again later", false
		case ofThisMachine(failed.RawResponse.Request):
			e.Remedy = checkMachine
		default:
			e.Remedy = "check AZURE_TENANT_ID, AZURE_CLIENT_ID and the secret or certificate"
		}
	case len(attempts) == 0:
		attempts = []string{"nobody has signed in on this machine"}
	}
	e.words = oneLine(strings.Join(attempts, "; "))
	return e
}

// describeResponse tells what Entra ID, or the endpoint of a managed identity,
// answered.
func describeResponse(response *http.Response) string {
	body, _ := runtime.Payload(response) // the status says enough
	var answer struct {
		Error       string
		Description string `json:"error_description"`
		Message     string
	}
	words := string(body)
	if json.Unmarshal(body, &answer) == nil {
		words = strings.TrimSpace(answer.Error + " " + answer.Description + answer.Message)
	}
	who := "it"
	if response.Request != nil {
		who = response.Request.URL.Host
	}
	return strings.TrimSuffix(fmt.Sprintf("%s answers %d %s", who, response.StatusCode, words), ".")
}

// attempt is what became of one credential, mostly with its name.
var attempt = regexp.MustCompile(`(?s)^\s*(?:(\w+)Credential: )?(.*)`)

// notThere are the words about a credential that nobody has set up.
var notThere = regexp.MustCompile(`^(executable not found on path|missing environment variable AZURE_TENANT_ID|no (client ID|token file|tenant ID) specified)$`)

// attemptsOf tells what became of the credentials that are there, one after
// another.
func attemptsOf(err error) (attempts []string) {
	const most = 16 << 10 // of what programs have written
	text := err.Error()
	text = text[:min(len(text), most)]
	_, list, found := strings.Cut(text, "Attempted credentials:")
	if !found {
		return []string{withoutAdvice(text)}
	}
	for each := range strings.SplitSeq(strings.ReplaceAll(list, "\n\t\t", " "), "\n\t") {
		if strings.TrimSpace(each) == "" || strings.Contains(each, "RESPONSE ") { // see describeResponse
			continue
		}
		m := attempt.FindStringSubmatch(each)
		name, words := m[1], withoutAdvice(m[2])
		if words == "signal: killed" {
			words = "the program did not end in time"
		}
		if !notThere.MatchString(words) {
			attempts = append(attempts, strings.TrimPrefix(name+": "+words, ": "))
		}
	}
	return attempts
}

// advice is what is added for those who write programs.
var advice = regexp.MustCompile(`(?s)(Get|Post) "[^"]*": |\.? (See https://aka\.ms/|To troubleshoot, visit |Check pod configuration|This may be due to a limitation of this module).*`)

func withoutAdvice(words string) string {
	return strings.TrimSuffix(strings.TrimPrefix(advice.ReplaceAllString(words, ""), "ERROR: "), ".")
}

// oneLine keeps the beginning of what others have said.
func oneLine(words string) string {
	const most = 500
	words = strings.Join(strings.Fields(words), " ")
	if len(words) > most {
		words = strings.ToValidUTF8(words[:most], "") + "..."
	}
	return output.Visible(words)
}

// authority is the host that gives out tokens.
func authority() string {
	if u, err := url.Parse(os.Getenv("AZURE_AUTHORITY_HOST")); err == nil && u.Host != "" {
		return u.Host
	}
	return "login.microsoftonline.com"
}
