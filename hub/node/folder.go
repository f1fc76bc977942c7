package node

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/iotdm/iotdm/hub"
)

// The files of a data folder. Every one is replaced as a whole, so that none
// is ever half-written.
const (
	lockFile     = "lock"          // held while a hub runs
	infoFile     = "hub.json"      // where it listens
	policiesFile = "policies.json" // shared access policies with their keys
	caKeyFile    = "ca-key.pem"    // private key and certificate of the CA
	leafFile     = "server.pem"    // the same of the server, ECDSA
	rsaLeafFile  = "server-rsa.pem"
	caFile       = "ca.pem"     // certificate of the CA, for clients
	bundleFile   = "bundle.pem" // and those that the system trusts
	storeFolder  = "store"
	eventFolder  = "events"
	shelfFolder  = "snapshots" // of a hub under test
	instanceFile = "instance"  // of one of several nodes: what tells it from others of its name

	folderMode = 0o700
	secretMode = 0o600
	publicMode = 0o644 // caFile and bundleFile
)

// A reader holds the lock for a moment to see whether a hub does. A hub that
// starts then waits.
const (
	lockPatience = 500 * time.Millisecond
	lockRetry    = 5 * time.Millisecond
)

// ErrFolderInUse means that another hub runs with the data folder.
var ErrFolderInUse = errors.New("another hub runs with this data folder")

// A folder is the data folder of a running hub, or, with dir empty, what would
// be in it.
type folder struct {
	dir   string
	lock  *flock.Flock // nil: somebody else holds it
	certs *certs

	warnings []string // what an operator has to know of it

	listing sync.Mutex // guards what follows, once the hub runs
	list    []hub.Policy

	writing sync.Mutex // held while the list is written
}

// folderOptions are those of openFolder.
type folderOptions struct {
	storage  Storage
	names    []string     // more names for the certificate
	policies []hub.Policy // to be stored with the others
	now      func() time.Time
	shared   *Cluster // that has policies and CA; nil: they are in the folder
}

// openFolder takes possession of a data folder and makes what is missing in it.
func openFolder(o folderOptions) (_ *folder, err error) {
	f := &folder{list: defaultPolicies()}
	if o.storage.dir == "" {
		if err = f.openPolicies(o); err == nil {
			f.certs, err = openCerts("", o.names, o.now, o.shared)
		}
		return f, err
	}
	if _, err := certNames(o.names); err != nil {
		return nil, err // it is not the folder's fault
	}
	if f.dir, err = filepath.Abs(o.storage.dir); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	defer func() {
		if err != nil && f.lock != nil {
			_ = f.lock.Close()
		}
	}()
	if o.storage.held == nil {
		if f.lock, err = lockFolder(f.dir); err != nil {
			return nil, err
		}
	}
	if exposed := tighten(f.dir); exposed != "" {
		f.warnings = append(f.warnings, exposed)
	}
	// From here on readers see a hub; what the last one left must not stand
	// for where this one listens.
	if err := f.publish(Info{}); err != nil {
		return nil, err
	}
	if err := f.openPolicies(o); err != nil {
		return nil, f.problem(err)
	}
	if f.certs, err = openCerts(f.dir, o.names, o.now, o.shared); err != nil {
		return nil, f.problem(err)
	}
	if f.certs.remade != "" {
		f.warnings = append(f.warnings, f.certs.remade)
	}
	if err := f.writeBundle(); err != nil {
		return nil, f.problem(err)
	}
	return f, nil
}

// problem says which folder err is about, and what to do if this user may not
// use it.
func (f *folder) problem(err error) error { return folderProblem(f.dir, err) }

func folderProblem(dir string, err error) error {
	hint := ""
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		hint = "; give this user the right to it, or use another folder"
	}
	return fmt.Errorf("data folder %s: %w%s", dir, err, hint)
}

// lockFolder makes the folder if need be and keeps other hubs out of it.
func lockFolder(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return nil, folderProblem(dir, err)
	}
	l := flock.New(filepath.Join(dir, lockFile))
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	_, err := l.TryLockContext(ctx, lockRetry)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		by := ""
		if state, err := readState(dir); err == nil && state.PID != 0 {
			by = fmt.Sprintf(" (process %d)", state.PID)
		}
		return nil, fmt.Errorf("%w%s: %s; stop it, or use another folder", ErrFolderInUse, by, dir)
	case err != nil:
		return nil, folderProblem(dir, err)
	}
	return l, nil
}

// openPolicies makes or reads the policies, and adds to them. Programs of this
// machine find them in the folder, wherever they are kept.
func (f *folder) openPolicies(o folderOptions) (err error) {
	var stored []hub.Policy
	if f.dir != "" {
		if stored, err = readPolicies(filepath.Join(f.dir, policiesFile)); err != nil {
			return err
		}
	}
	if o.shared != nil {
		err = f.sharePolicies(o.shared, o.policies)
	} else {
		if stored != nil {
			f.list = withProvisioning(stored)
		}
		f.list, err = mergePolicies(f.list, o.policies)
	}
	if err != nil || reflect.DeepEqual(f.list, stored) {
		return err
	}
	return f.writePolicies()
}

// writePolicies writes the policies as they are.
func (f *folder) writePolicies() error {
	if f.dir == "" {
		return nil
	}
	f.writing.Lock()
	defer f.writing.Unlock()
	text, err := json.MarshalIndent(f.policies(), "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(f.dir, policiesFile), text, secretMode)
}

// writeBundle writes the certificates for clients: the CA alone, and the CA
// with all that the system trusts, for variables such as SSL_CERT_FILE that
// replace the system's.
func (f *folder) writeBundle() error {
	ca := f.caPEM()
	if err := keepFile(filepath.Join(f.dir, caFile), ca, publicMode); err != nil {
		return err
	}
	bundle := append(bytes.Clone(systemRoots()), ca...)
	file := filepath.Join(f.dir, bundleFile)
	err := keepFile(file, bundle, publicMode)
	if isFull(err) {
		// One that is there lacks what the system has come to trust since.
		if _, statErr := os.Stat(file); statErr == nil {
			return nil
		}
	}
	return err
}

// systemRoots returns the certificates the system trusts, in PEM form, from
// where crypto/x509 and OpenSSL look for them. Windows keeps none in a file.
func systemRoots() []byte {
	for _, file := range []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Gentoo, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/ssl/cert.pem",                                 // Alpine, macOS, the BSDs
		"/usr/local/etc/ssl/cert.pem",                       // FreeBSD
	} {
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			return append(bytes.TrimRight(text, "\n"), '\n')
		}
	}
	return nil
}

func (f *folder) storeDir() string { return filepath.Join(f.dir, storeFolder) }
func (f *folder) eventDir() string { return filepath.Join(f.dir, eventFolder) }

// snapshotDir is where snapshots are: empty is memory, as the state is.
func (f *folder) snapshotDir(s Storage) string {
	if !s.state() {
		return ""
	}
	return filepath.Join(f.dir, shelfFolder)
}

func (f *folder) tlsConfig() *tls.Config  { return f.certs.config }
func (f *folder) rootCAs() *x509.CertPool { return f.certs.pool() }
func (f *folder) caPEM() []byte           { return f.certs.caPEM() }

func (f *folder) policies() []hub.Policy {
	f.listing.Lock()
	defer f.listing.Unlock()
	return f.list
}

// setPolicies reports whether list is another one than there was.
func (f *folder) setPolicies(list []hub.Policy) bool {
	f.listing.Lock()
	defer f.listing.Unlock()
	changed := !reflect.DeepEqual(f.list, list)
	f.list = list
	return changed
}

// publish tells readers of the folder where the hub listens.
func (f *folder) publish(info Info) error {
	if f.dir == "" {
		return nil
	}
	info.PID = os.Getpid()
	if err := f.writeState(state{Running: true, Info: info}); err != nil {
		return f.problem(err)
	}
	return nil
}

// close tells readers that the hub has stopped, and lets go of the folder.
func (f *folder) close() error {
	if f.dir == "" {
		return nil
	}
	s, err := readState(f.dir)
	if err == nil {
		s.Running = false
		err = f.writeState(s)
	}
	if f.lock != nil {
		err = cmp.Or(err, f.lock.Close())
	}
	if err != nil {
		return f.problem(err)
	}
	return nil
}

func (f *folder) writeState(s state) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	file := filepath.Join(f.dir, infoFile)
	err = writeFile(file, text, secretMode)
	if isFull(err) && overwriteFile(file, text) == nil {
		return nil
	}
	return err
}

// isFull reports whether err says that the disk has no space.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// overwriteFile writes a small JSON text over the one that file holds, which
// needs no space, so that a hub starts and ends on a full disk. Both are less
// than a page, which is written as a whole.
func overwriteFile(file string, text []byte) error {
	w, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		return err
	}
	if n := int(info.Size()) - len(text); n > 0 {
		text = append(bytes.Clone(text), bytes.Repeat([]byte(" "), n)...)
	}
	if _, err := w.WriteAt(text, 0); err != nil {
		return err
	}
	return w.Sync()
}

// keepFile writes file unless it holds text already.
func keepFile(file string, text []byte, mode fs.FileMode) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return writeFile(file, text, mode)
}

// writeFile replaces file as a whole, or leaves it as it was. Whoever writes
// to a folder holds its lock, so that the name for the new file is free.
func writeFile(file string, text []byte, mode fs.FileMode) (err error) {
	next := file + ".new"
	w, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	// Without a sync, a loss of power after the rename leaves an empty file.
	if err = cmp.Or(err, w.Sync(), w.Close()); err == nil {
		err = os.Rename(next, file)
	}
	if err != nil {
		_ = os.Remove(next)
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // can't sync a folder
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}
