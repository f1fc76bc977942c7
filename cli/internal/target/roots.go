package target

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"

	"github.com/iotdm/iotdm/cli/internal/fail"
)

// trust returns the configuration that trusts the certificates in two PEM
// files besides the system's: the one that --ca-file names and the local hub's
// CA. An empty name adds nothing; without any the result is nil.
func trust(caFile, localCA string) (*tls.Config, error) {
	var pool *x509.CertPool
	for _, f := range []struct{ what, name string }{{"--ca-file", caFile}, {"the local hub's CA", localCA}} {
		if f.name == "" {
			continue
		}
		if pool == nil {
			pool = systemRoots()
		}
		if err := addCertificates(pool, f.what, f.name); err != nil {
			return nil, err
		}
	}
	if pool == nil {
		return nil, nil
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

func systemRoots() *x509.CertPool {
	if pool, err := x509.SystemCertPool(); err == nil {
		return pool
	}
	return x509.NewCertPool() // a system without any: the files are all there is
}

func addCertificates(pool *x509.CertPool, what, file string) error {
	pem, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail.Usagef("%s: there is no file %s", what, file)
	case err != nil:
		return fail.Errorf(fail.Failed, "%s: %v", what, fail.PlainPathError(err))
	case !pool.AppendCertsFromPEM(pem):
		return fail.Usagef("%s: %s holds no certificate in PEM form", what, file)
	}
	return nil
}
