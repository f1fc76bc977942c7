package sas_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/sas"
)

const (
	testKey   = "TT5ob9Ntspj4le0WvZE5ZSBQymQ1maN+qaqERaqDXvI="
	testToken = "SharedAccessSignature sr=contoso.azure-devices.net%2Fdevices%2Fdev-1" +
		"&sig=pO4BCc2TyIeahEuortMJ2i0k3lrfXJseIYRXuP52SMI%3D&se=1767225600"
)

func TestParseConnectionString(t *testing.T) {
	tests := []struct {
		name, in string
		want     sas.ConnectionString
		audience string
	}{
		{"a device with its key", "HostName=h.test;DeviceId=d;SharedAccessKey=" + testKey,
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", SharedAccessKey: testKey}, "h.test/devices/d"},
		{"a device with the key of a policy", "HostName=h.test;DeviceId=d;SharedAccessKeyName=device;SharedAccessKey=" + testKey,
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", SharedAccessKeyName: "device", SharedAccessKey: testKey}, "h.test/devices/d"},
		{"a device with a token", "HostName=h.test;DeviceId=d;SharedAccessSignature=" + testToken,
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", SharedAccessSignature: testToken}, "h.test/devices/d"},
		{"a device with a certificate", "HostName=h.test;DeviceId=d;x509=true",
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", X509: true}, "h.test/devices/d"},
		{"a module", "HostName=h.test;DeviceId=d;ModuleId=m;SharedAccessKey=" + testKey,
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", ModuleID: "m", SharedAccessKey: testKey}, "h.test/devices/d/modules/m"},
		{"a module with a certificate", "HostName=h.test;DeviceId=d;ModuleId=m;x509=true",
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", ModuleID: "m", X509: true}, "h.test/devices/d/modules/m"},
		{"a device behind a gateway", "HostName=h.test;DeviceId=d;SharedAccessKey=" + testKey + ";GatewayHostName=edge",
			sas.ConnectionString{HostName: "h.test", GatewayHostName: "edge", DeviceID: "d", SharedAccessKey: testKey}, "h.test/devices/d"},
		{"a service with a policy", "HostName=h.test;SharedAccessKeyName=service;SharedAccessKey=" + testKey,
			sas.ConnectionString{HostName: "h.test", SharedAccessKeyName: "service", SharedAccessKey: testKey}, "h.test"},
		{"a service with a token", "HostName=h.test;SharedAccessSignature=" + testToken,
			sas.ConnectionString{HostName: "h.test", SharedAccessSignature: testToken}, "h.test"},
		{"names in any case and order, unknown names", "sharedaccesskey=" + testKey + ";DEVICEID=d;Color=blue;hostname=h.test;X509=false",
			sas.ConnectionString{HostName: "h.test", DeviceID: "d", SharedAccessKey: testKey}, "h.test/devices/d"},
		{"a host with a port", "HostName=[::1]:8443;DeviceId=d;x509=TRUE",
			sas.ConnectionString{HostName: "[::1]:8443", DeviceID: "d", X509: true}, "[::1]:8443/devices/d"},
		{"a device id with every punctuation mark", "HostName=h.test;DeviceId=d-.+%_#*?!(),:=@$';x509=true",
			sas.ConnectionString{HostName: "h.test", DeviceID: "d-.+%_#*?!(),:=@$'", X509: true}, "h.test/devices/d-.+%_#*?!(),:=@$'"},
	}
	for _, id := range []string{"a=b", "=", "a'b", "a%41", "a%2Fb", "%", "a#b", "a+b", "+", "a?b", "a:b", "a,b", "$a", "..", "ModuleId=m", strings.Repeat("x", 128)} {
		c := sas.ConnectionString{HostName: "h.test", DeviceID: id, ModuleID: id, SharedAccessKey: testKey}
		if again, err := sas.ParseConnectionString(c.Format()); err != nil || again != c {
			t.Errorf("the connection string of %q reads as that of %q, %v", id, again.DeviceID, err)
		}
	}
	for _, id := range []string{";", "a;b", "a b", "a/b", "a&b", "ä", "a\n", strings.Repeat("x", 129)} {
		c := sas.ConnectionString{HostName: "h.test", DeviceID: id, SharedAccessKey: testKey}
		if again, err := sas.ParseConnectionString(c.Format()); err == nil {
			t.Errorf("the connection string of %q reads as that of %q, want an error", id, again.DeviceID)
		}
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sas.ParseConnectionString(tt.in)
			if err != nil {
				t.Fatalf("ParseConnectionString(%q): %v", tt.in, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("ParseConnectionString(%q) (-want +got):\n%s", tt.in, diff)
			}
			if diff := cmp.Diff(tt.audience, got.Audience()); diff != "" {
				t.Errorf("Audience (-want +got):\n%s", diff)
			}
			again, err := sas.ParseConnectionString(got.Format())
			if err != nil {
				t.Fatalf("ParseConnectionString(Format()): %v", err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("ParseConnectionString(Format()) (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseConnectionStringRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"nothing", "", "it is empty"},
		{"a line end after it", "HostName=h;DeviceId=d;x509=true\n", "white space before or after it"},
		{"no host", "DeviceId=d;SharedAccessKey=" + testKey, "HostName is missing"},
		{"no credential of a device", "HostName=h;DeviceId=d", "SharedAccessKey is missing (or SharedAccessSignature, or x509=true)"},
		{"x509=false as credential", "HostName=h;DeviceId=d;x509=false", "SharedAccessKey is missing (or SharedAccessSignature, or x509=true)"},
		{"no credential of a service", "HostName=h;SharedAccessKeyName=service", "SharedAccessKey is missing (or SharedAccessSignature)"},
		{"a key of nobody", "HostName=h;SharedAccessKey=" + testKey, "SharedAccessKeyName (of a service) or DeviceId (of a device) is missing"},
		{"a module without device", "HostName=h;ModuleId=m;SharedAccessKey=" + testKey, "DeviceId is missing beside ModuleId"},
		{"a certificate without device", "HostName=h;x509=true", "DeviceId is missing beside x509=true"},
		{"two credentials", "HostName=h;DeviceId=d;x509=true;SharedAccessKey=" + testKey, "more than one of SharedAccessKey, SharedAccessSignature and x509=true"},
		{"a policy with a certificate", "HostName=h;DeviceId=d;x509=true;SharedAccessKeyName=p", "SharedAccessKeyName does not go with x509=true"},
		{"a semicolon at the end", "HostName=h;DeviceId=d;x509=true;", `part 4 is empty; remove the extra ";"`},
		{"two semicolons", "HostName=h;;DeviceId=d;x509=true", `part 2 is empty; remove the extra ";"`},
		{"a member without value", "HostName=;DeviceId=d", "HostName has no value"},
		{"a known name without equals sign", "HostName=h;DeviceId", "DeviceId has no value"},
		{"an unknown name without value", "HostName=h;Color=", "part 2 has no value"},
		{"a part that is only text", "HostName=h;" + testKey[:20], "part 2 is not Name=Value"},
		{"a part without name", "HostName=h;=x", "part 2 is not Name=Value"},
		{"a repeated member", "HostName=h;DeviceId=d;hostname=h2", "part 1 and part 3 have the same name"},
		{"a repeated unknown name", "HostName=h;Color=1;color=2", "part 2 and part 3 have the same name"},
		{"a URL as host", "HostName=https://h.test;DeviceId=d;x509=true", `HostName is not a bare host name, such as "contoso.azure-devices.net"`},
		{"a space in the device id", "HostName=h;DeviceId=a b;x509=true", "DeviceId is not 1 to 128 ASCII letters, digits and -.+%_#*?!(),:=@$'"},
		{"a long device id", "HostName=h;x509=true;DeviceId=" + strings.Repeat("d", 129), "DeviceId is not 1 to 128 ASCII letters, digits and -.+%_#*?!(),:=@$'"},
		{"a policy name with a space", "HostName=h;SharedAccessKeyName=a b;SharedAccessKey=" + testKey, "SharedAccessKeyName is not a name of ASCII letters, digits and -._@"},
		{"a cut key", "HostName=h;DeviceId=d;SharedAccessKey=" + testKey[:30], "SharedAccessKey is not base64; was it cut off?"},
		{"a key with a line end in it", "HostName=h;DeviceId=d;SharedAccessKey=" + testKey[:30] + "\n" + testKey[30:], "SharedAccessKey is broken by white space; paste it in one piece"},
		{"a key that is too short", "HostName=h;DeviceId=d;SharedAccessKey=" + testKey[:8], "SharedAccessKey is not 16 to 64 bytes of base64; was it cut off?"},
		{"a cut token", "HostName=h;DeviceId=d;SharedAccessSignature=" + testToken[:120], "SharedAccessSignature is broken: token has no se"},
		{"a wrong x509", "HostName=h;DeviceId=d;x509=yes", "x509 is neither true nor false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sas.ParseConnectionString(tt.in)
			if err == nil {
				t.Fatalf("ParseConnectionString(%q) = %v, want an error", tt.in, got)
			}
			if diff := cmp.Diff("connection string: "+tt.want, err.Error()); diff != "" {
				t.Errorf("error of ParseConnectionString(%q) (-want +got):\n%s", tt.in, diff)
			}
			if got != (sas.ConnectionString{}) {
				t.Errorf("ParseConnectionString(%q) = %v beside its error", tt.in, got)
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	token, err := sas.ParseToken(testToken)
	if err != nil {
		t.Fatal(err)
	}
	c := sas.ConnectionString{HostName: "h", DeviceID: "d", SharedAccessKey: testKey, SharedAccessSignature: testToken}
	holder := struct {
		K *sas.Key
		S []sas.Secret
		C sas.ConnectionString
		T *sas.Token
	}{&c.SharedAccessKey, []sas.Secret{c.SharedAccessSignature}, c, &token}
	secrets := []string{testKey, testKey[5:20], "pO4BCc2T", "a4ee0109", "164 238", fmt.Sprintf("%x", testKey), fmt.Sprint([]byte(testKey[:4]))[1:8]}
	check := func(how, text string) {
		t.Helper()
		for _, s := range secrets {
			if strings.Contains(strings.ToLower(text), strings.ToLower(s)) {
				t.Errorf("%s shows a secret: %s", how, text)
			}
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%c", "%t", "%10.3s"} {
		for _, v := range []any{c.SharedAccessKey, c.SharedAccessSignature, c, &c, token, &token, holder, &holder} {
			check(fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v))
		}
	}
	check("String", c.SharedAccessKey.String()+c.SharedAccessSignature.String()+c.String()+token.String())
	var log bytes.Buffer
	for _, l := range []*slog.Logger{slog.New(slog.NewJSONHandler(&log, nil)), slog.New(slog.NewTextHandler(&log, nil))} {
		l.Info("x", "key", c.SharedAccessKey, "secret", c.SharedAccessSignature, "cs", c, "token", token)
	}
	check("slog", log.String())
}

// The identity registry answers with keys, so JSON must carry them.
func TestKeyIsRealInJSON(t *testing.T) {
	got, err := json.Marshal(map[string]any{"primaryKey": sas.Key(testKey)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"primaryKey":"`+testKey+`"}`, string(got)); diff != "" {
		t.Errorf("JSON of a key (-want +got):\n%s", diff)
	}
	var back struct{ PrimaryKey sas.Key }
	if err := json.Unmarshal(got, &back); err != nil || back.PrimaryKey != testKey {
		t.Errorf("Unmarshal(%s): %v, and the key differs or is lost", got, err)
	}
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("HostName=h.test;DeviceId=d;ModuleId=m;SharedAccessKeyName=p;SharedAccessKey=" + testKey + ";GatewayHostName=g")
	f.Add("hostname=h.test;DeviceId=d;SharedAccessSignature=" + testToken)
	f.Add("HostName=h;DeviceId=d;x509=true")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := sas.ParseConnectionString(s)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("error of more than one line: %q", err)
			}
			return
		}
		again, err := sas.ParseConnectionString(c.Format())
		if err != nil || again != c {
			t.Errorf("ParseConnectionString(%q) = %v, %v, want %v", c.Format(), again, err, c)
		}
		if k := string(c.SharedAccessKey); k != "" && strings.Contains(c.String(), "="+k) {
			t.Errorf("String of %q shows the key", s)
		}
	})
}
