package hubrest_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// putAz puts a shell script in the place of the program az into the PATH.
func putAz(t *testing.T, script string) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "az"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestWhoHasSignedInWithTheAzureCLI(t *testing.T) {
	later := time.Now().Add(time.Hour)
	local := later.Format("2006-01-02 15:04:05.000000")
	const args = "account get-access-token --resource https://iothubs.azure.net --output json"
	for _, tt := range []struct {
		name, script, want string // want is a token, or in the error
	}{
		{"a token", fmt.Sprintf(`echo '{"accessToken":"cli-token","expiresOn":"1999-01-01 00:00:00.000000","expires_on":%d,"tokenType":"Bearer"}'`, later.Unix()), "Bearer cli-token"},
		{"of an older az", fmt.Sprintf(`echo '{"accessToken":"cli-token","expiresOn":"%s"}'`, local), "Bearer cli-token"},
		{"with what it is asked", fmt.Sprintf(`[ "$*" = "%s" ] || { echo "$*" >&2; exit 2; }; echo '{"accessToken":"t","expires_on":"%d"}'`, args, later.Unix()), "Bearer t"},
		{"nobody has signed in", `printf "ERROR: Please run 'az login' to setup account.\n" >&2; exit 1`, "az account get-access-token: Please run 'az login' to setup account"},
		{"it has control characters", `printf "ERROR: \033[2Joops\n" >&2; exit 1`, "[2Joops"},
		{"a token that is over", `echo '{"accessToken":"secret-token","expires_on":1}'`, "the answer holds no valid token"},
		{"no JSON", `echo secret-token`, "it printed what is not documented"},
		{"two lines of header", fmt.Sprintf(`printf '%%s' '{"accessToken":"a\r\nX: secret-token","expires_on":%d}'`, later.Unix()), "the answer holds no valid token"},
		{"it says nothing", `exit 3`, "exit status 3"},
		{"it says too much", `head -c 9000000 /dev/zero | tr '\0' x >&2; exit 1`, "xxx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			putAz(t, tt.script)
			cred, err := hubrest.NewAzureCLI(hubrest.AzureCLIOptions{})
			if err != nil {
				t.Fatal(err)
			}
			header, err := cred.Authorization(t.Context())
			if err == nil {
				if header != tt.want {
					t.Errorf("Authorization %q, want %q", header, tt.want)
				}
				return
			}
			if text := err.Error(); !strings.Contains(text, tt.want) || strings.Contains(text, "secret-token") || strings.ContainsAny(text, "\x1b\n") || len(text) > 2000 {
				t.Errorf("error %.300q, want one with %q", text, tt.want)
			}
			if strings.HasPrefix(tt.want, "az ") && !errors.Is(err, hubrest.ErrUnauthorized) {
				t.Errorf("%v is not ErrUnauthorized", err)
			}
		})
	}
}

func TestTheEnvironmentChoosesTheAzureCLI(t *testing.T) {
	putAz(t, fmt.Sprintf(`case "$*" in *--tenant*) t=of-tenant;; *) t=cli;; esac; echo '{"accessToken":"'$t'","expires_on":%d}'`, time.Now().Add(time.Hour).Unix()))
	for _, tt := range []struct {
		name string
		env  map[string]string
		want string
	}{
		{"nothing", nil, "Bearer cli"},
		{"it is asked for", map[string]string{"AZURE_TOKEN_CREDENTIALS": "AzureCLICredential", "AZURE_CLIENT_ID": "c"}, "Bearer cli"},
		{"a tenant", map[string]string{"AZURE_TOKEN_CREDENTIALS": "dev", "AZURE_TENANT_ID": "t"}, "Bearer of-tenant"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cred, err := hubrest.CredentialFromEnvironment(func(name string) string { return tt.env[name] })
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got, err := cred.Authorization(t.Context()); got != tt.want || err != nil {
					t.Errorf("Authorization %q, %v, want %q", got, err, tt.want)
				}
			}
		})
	}
	for _, env := range []map[string]string{
		{"AZURE_TOKEN_CREDENTIALS": "VisualStudioCodeCredential"},
		{"AZURE_TOKEN_CREDENTIALS": "dev", "AZURE_TENANT_ID": "t & calc"},
	} {
		if _, err := hubrest.CredentialFromEnvironment(func(name string) string { return env[name] }); err == nil {
			t.Errorf("%v was accepted", env)
		}
	}
}
