package sas_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

func TestPasted(t *testing.T) {
	const want = "HostName=h.test;SharedAccessKeyName=service;SharedAccessKey=" + testKey
	for _, tt := range []struct{ name, in, want string }{
		{"as it should be", want, want},
		{"with a line end", want + "\r\n", want},
		{"with blanks around", "\t " + want + "  ", want},
		{"with a semicolon at the end", want + ";", want},
		{"with a semicolon and a line end", want + "; \n", want},
		{"in double quotes", `"` + want + `"`, want},
		{"in single quotes, with a semicolon", " '" + want + ";' ", want},
		{"with blanks around its parts", "HostName = h.test; SharedAccessKeyName=service ;\n  SharedAccessKey= " + testKey, want},
		{"with a token, whose blank stays", "HostName=h.test; SharedAccessSignature=" + testToken + ";", "HostName=h.test;SharedAccessSignature=" + testToken},
		{"with a blank in its key, which stays", want[:len(want)-9] + " " + want[len(want)-9:], want[:len(want)-9] + " " + want[len(want)-9:]},
		{"with two semicolons at the end, of which one stays", want + ";;", want + ";"},
		{"with one quote, which stays", `"` + want, `"` + want},
		{"with quotes within quotes, which stay", `"'` + want + `'"`, "'" + want + "'"},
		{"nothing", " ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, sas.Pasted(tt.in)); diff != "" {
				t.Errorf("Pasted(%q) (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

func FuzzPasted(f *testing.F) {
	f.Add(" 'HostName = h.test; DeviceId=d;SharedAccessKey=" + testKey + ";'\n")
	f.Add("HostName=h.test;DeviceId=d';x509=true")
	f.Fuzz(func(t *testing.T, s string) {
		// What is parsed needs no mending, so mending does not change it.
		if c, err := sas.ParseConnectionString(sas.Pasted(s)); err == nil {
			if got := sas.Pasted(c.Format()); got != c.Format() {
				t.Errorf("Pasted(%q) = %q", c.Format(), got)
			}
		}
		// Mending a text that a person quoted is the same as mending the text.
		if c, err := sas.ParseConnectionString(s); err == nil {
			again, err := sas.ParseConnectionString(sas.Pasted("\n\"" + c.Format() + " ;\" "))
			if err != nil || again != c {
				t.Errorf("the quoted %q reads as %v, %v", c.Format(), again, err)
			}
		}
	})
}
