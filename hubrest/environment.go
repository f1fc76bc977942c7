package hubrest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/iotdm/iotdm/sas"
)

// CredentialFromEnvironment returns the credential that the variables of Azure's tools describe: with AZURE_TENANT_ID
// and AZURE_CLIENT_ID a client secret (AZURE_CLIENT_SECRET), certificate (AZURE_CLIENT_CERTIFICATE_PATH, PEM with the
// key, and AZURE_CLIENT_SEND_CERTIFICATE_CHAIN) or workload identity (AZURE_FEDERATED_TOKEN_FILE), in this order; else
// the managed identity of the machine, a user-assigned one if AZURE_CLIENT_ID is set. Where no variable speaks of a
// managed identity and there is the Azure CLI, the person who has signed in there comes first. AZURE_TOKEN_CREDENTIALS
// chooses, as for Azure's SDKs: AzureCLICredential or dev, or ManagedIdentityCredential. AZURE_AUTHORITY_HOST is
// honoured. A nil getenv means os.Getenv.
func CredentialFromEnvironment(getenv func(string) string) (Credential, error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	o := EntraOptions{TenantID: getenv("AZURE_TENANT_ID"), ClientID: getenv("AZURE_CLIENT_ID"), Authority: getenv("AZURE_AUTHORITY_HOST")}
	if o.TenantID != "" && o.ClientID != "" {
		if secret := getenv("AZURE_CLIENT_SECRET"); secret != "" {
			return NewClientSecret(o, sas.Secret(secret))
		}
		if path := getenv("AZURE_CLIENT_CERTIFICATE_PATH"); path != "" {
			if getenv("AZURE_CLIENT_CERTIFICATE_PASSWORD") != "" {
				return nil, errors.New("AZURE_CLIENT_CERTIFICATE_PASSWORD: keys under a password are not supported")
			}
			cert, err := tls.LoadX509KeyPair(path, path)
			if err != nil {
				return nil, fmt.Errorf("AZURE_CLIENT_CERTIFICATE_PATH: %w", err)
			}
			chain := getenv("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN")
			return NewClientCertificate(o, cert, chain == "1" || chain == "true")
		}
		if file := getenv("AZURE_FEDERATED_TOKEN_FILE"); file != "" {
			return NewWorkloadIdentity(o, file)
		}
	}
	cli := AzureCLIOptions{TenantID: o.TenantID}
	switch choice := strings.ToLower(getenv("AZURE_TOKEN_CREDENTIALS")); choice {
	case "azureclicredential", "dev":
		return NewAzureCLI(cli)
	case "", "managedidentitycredential", "prod":
		managed, err := NewManagedIdentity(ManagedIdentityOptions{ClientID: o.ClientID, Getenv: getenv})
		if err != nil || choice != "" || o.ClientID != "" || getenv("IDENTITY_ENDPOINT") != "" {
			return managed, err
		}
		person, err := NewAzureCLI(cli)
		if err != nil {
			return managed, nil
		}
		return &firstOf{list: []Credential{person, managed}}, nil
	default:
		return nil, fmt.Errorf("AZURE_TOKEN_CREDENTIALS: %q is not supported; AzureCLICredential and ManagedIdentityCredential are", choice)
	}
}
