package hub

import (
	"os"

	"github.com/iotdm/iotdm/cli/internal/fail"
	"github.com/iotdm/iotdm/hub/entra"
	"github.com/iotdm/iotdm/internal/yamltext"
)

// readEntra reads the file of "hub run --entra": which tokens of Microsoft
// Entra ID the hub accepts, and what their principals may do. Without a file it
// accepts none.
//
//	issuers: [https://sts.windows.net/TENANT/]
//	keys: https://login.microsoftonline.com/TENANT/discovery/v2.0/keys
//	roles:
//	  OBJECT-ID: [IoT Hub Data Contributor]
func readEntra(file string) (*entra.Options, error) {
	if file == "" {
		return nil, nil
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fail.Usagef("--entra: %v", fail.PlainPathError(err))
	}
	opt, err := entra.Parse(content)
	if err != nil {
		return nil, fail.Usagef("--entra %s: %s", file, yamltext.Complaint(err))
	}
	return &opt, nil
}
