package service

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/iotdm/iotdm/cli/internal/output"
	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/sas"
)

// A job whose answer is lost may run all the same.
func TestAJobInDoubtIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"lost", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "Whether job j1 has begun is not known; look with \"iotdm service job get j1\"\n"},
		{"refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusConflict) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(tt.answer)
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			defer srv.Close()
			roots := x509.NewCertPool()
			roots.AddCert(srv.Certificate())
			client, err := hubrest.New(hubrest.Options{
				ConnectionString: sas.ConnectionString{HostName: "example.com", SharedAccessKeyName: "service", SharedAccessKey: "AAAAAAAAAAAAAAAAAAAAAA=="},
				Addr:             srv.Listener.Addr().String(),
				TLS:              &tls.Config{RootCAs: roots},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var errOut bytes.Buffer
			_, err = beginJob(t.Context(), output.NewStreams(nil, nil, &errOut), client, hubrest.JobRequest{ID: "j1", Condition: "*", Method: &hubrest.Method{Name: "m"}})
			if err == nil || errOut.String() != tt.want {
				t.Errorf("error %v; standard error has %q, want %q", err, errOut.String(), tt.want)
			}
		})
	}
}
