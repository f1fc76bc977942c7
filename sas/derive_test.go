package sas_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

func TestDeriveKey(t *testing.T) {
	const group = "sK1cISZYKU50RMJjFcUj5auQhVzFKCzrFvctwHk/cHI="
	tests := []struct {
		name, group, id string
		want            string // the key, or the error
	}{
		{"the key that the documents show", group, "dev-1", "dEqUp/Yx9kVJdtgNouxUbM9EyS4/r30JGixDJrfB33c="},
		{"an id in capitals has another key", group, "DEV-1", "R18QzR+lIdpVYlZTHB/6oQcOTetiJVeoP2wWlUWeyWQ="},
		{"no id", group, "", "the registration id is empty"},
		{"a key that was cut off", "sK1cISZYKU50", "dev-1", "not 16 to 64 bytes of base64"},
		{"no base64", "sK1cISZYKU50RMJjFcUj5auQhVzFKCzrFvctwHk/cHI", "dev-1", "not base64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key, err := sas.DeriveKey(sas.Key(tt.group), tt.id)
			got := string(key)
			if err != nil {
				got += err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("DeriveKey of %q (-want +got):\n%s", tt.id, diff)
			}
		})
	}
}
