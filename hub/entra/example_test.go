package entra_test

import (
	"fmt"

	"github.com/iotdm/iotdm/hub/entra"
	"github.com/iotdm/iotdm/hub/node"
)

// A hub whose service clients may authenticate with Microsoft Entra ID.
func Example() {
	s, err := node.New(node.Options{Entra: &entra.Options{
		Issuers: []string{"https://login.microsoftonline.com/contoso.example/v2.0"},
		Keys:    "https://login.microsoftonline.com/contoso.example/discovery/v2.0/keys",
		Roles:   map[string][]string{"8f2c...": {"IoT Hub Twin Contributor"}},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
}
