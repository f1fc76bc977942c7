package node

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"

	"github.com/iotdm/iotdm/hub"
)

var (
	// ErrNeverRun means that no hub has run with the data folder.
	ErrNeverRun = errors.New("no hub has run with this data folder")

	// ErrNotRunning means that the hub of the data folder is not running, or
	// does not listen yet.
	ErrNotRunning = errors.New("the hub with this data folder is not running")
)

// Info is what a hub tells other programs of the same user through its data
// folder.
type Info struct {
	HostName  string `json:"hostName"`            // for connection strings
	MQTTSAddr string `json:"mqttsAddr"`           // host:port it listens on for MQTT over TLS
	HTTPSAddr string `json:"httpsAddr"`           // the same for REST, and MQTT and AMQP over WebSocket
	AMQPSAddr string `json:"amqpsAddr,omitempty"` // the same for AMQP over TLS; empty: it does not
	MQTTAddr  string `json:"mqttAddr,omitempty"`
	AMQPAddr  string `json:"amqpAddr,omitempty"`
	PID       int    `json:"pid"` // its process

	TestControls bool          `json:"testControls,omitempty"` // it has them
	ClockAhead   time.Duration `json:"clockAhead,omitempty"`   // how far its clock has been moved, in nanoseconds
	HealthAddr   string        `json:"healthAddr,omitempty"`   // host:port it answers health checks on; see Options.Health

	ConsumerGroups []string `json:"consumerGroups,omitempty"` // that it has besides $Default

	// IDScope is that of its provisioning service, which is where REST, MQTT and AMQP
	// over TLS are; empty: an older hub, which has none.
	IDScope string `json:"idScope,omitempty"`

	CAFile     string       `json:"-"` // path of its CA's certificate
	BundleFile string       `json:"-"` // path of that and all certificates the system trusts
	Policies   []hub.Policy `json:"-"` // its shared access policies, with keys
}

// Certifies reports whether the hub's certificate names host, a name or address
// without a port. It is true where that cannot be found out.
func (i Info) Certifies(host string) bool {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(i.CAFile), leafFile))
	if err != nil {
		return true
	}
	pair, err := tls.X509KeyPair(text, text)
	return err != nil || pair.Leaf.VerifyHostname(host) == nil
}

// state is the content of hub.json.
type state struct {
	Running bool `json:"running"`
	Info
}

// DefaultFolder returns the data folder of a hub that is given none:
// iotdm/hub in the folder for data of the user's programs, which is
// $XDG_DATA_HOME or ~/.local/share (XDG Base Directory Specification),
// ~/Library/Application Support on macOS and %LocalAppData% on Windows.
func DefaultFolder() (string, error) {
	data, err := userDataDir()
	if err != nil {
		return "", fmt.Errorf("find the user's data folder: %w", err)
	}
	return filepath.Join(data, "iotdm", "hub"), nil
}

func userDataDir() (string, error) {
	switch runtime.GOOS {
	case "windows":
		return os.UserCacheDir() // it is %LocalAppData%
	case "darwin":
		return os.UserConfigDir() // it is ~/Library/Application Support
	}
	// The specification has relative paths ignored.
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "share"), err
}

// ReadInfo reads what the hub with the data folder dir has published. The
// error wraps [ErrNeverRun] or [ErrNotRunning]; with the latter, Info is what
// is known all the same: the CA, the policies, and where the hub last listened.
func ReadInfo(dir string) (Info, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Info{}, fmt.Errorf("data folder: %w", err)
	}
	s, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, fmt.Errorf("%w: %s", ErrNeverRun, dir)
	}
	if err != nil {
		return Info{}, folderProblem(dir, err)
	}
	s.CAFile, s.BundleFile = filepath.Join(dir, caFile), filepath.Join(dir, bundleFile)
	if s.Policies, err = readPolicies(filepath.Join(dir, policiesFile)); err != nil {
		return Info{}, folderProblem(dir, err)
	}
	if !s.Running || s.HTTPSAddr == "" && s.MQTTSAddr == "" || !locked(dir) {
		return s.Info, fmt.Errorf("%w: %s", ErrNotRunning, dir)
	}
	return s.Info, nil
}

func readState(dir string) (s state, err error) {
	file := filepath.Join(dir, infoFile)
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

// locked reports whether a hub has the folder. A hub that was killed leaves
// its state as it was, but its lock ends with it.
func locked(dir string) bool {
	l := flock.New(filepath.Join(dir, lockFile), flock.SetFlag(os.O_RDONLY))
	free, err := l.TryRLock()
	_ = l.Close()
	// Without the right to open the lock, believe what the state says.
	return !free && !errors.Is(err, fs.ErrNotExist)
}

// Reset deletes the hub in the data folder dir: its devices, twins, snapshots, keys
// and certificates. The folder itself goes only if nothing else is in it. The
// error wraps [ErrFolderInUse] if the hub is running and [ErrNeverRun] if there
// is none.
func Reset(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, infoFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNeverRun, dir)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	// In this order a hub that starts after half of it finds nothing odd, and
	// a second Reset finds the rest.
	for _, name := range []string{shelfFolder, eventFolder, storeFolder, instanceFile, policiesFile, rsaLeafFile, leafFile, caKeyFile, bundleFile, caFile, infoFile} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			_ = lock.Close()
			return folderProblem(dir, err)
		}
	}
	err = lock.Close()
	_ = os.Remove(filepath.Join(dir, lockFile))
	_ = os.Remove(dir)
	return err
}
