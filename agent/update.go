package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/internal/wait"
	"github.com/iotdm/iotdm/mqttdevice"
)

// updateMethod and updateProperty are the names that the two tutorials about firmware updates use.
const (
	updateMethod   = "firmwareUpdate"
	updateProperty = "firmware"
)

const (
	defaultUpdateTimeout  = 30 * time.Minute
	defaultUpdateMaxSize  = 1 << 30
	defaultUpdatePatience = time.Hour
	// progressEvery is how often the progress of a download is reported.
	progressEvery = 5 * time.Second
)

// An Update says how an agent updates the software, or the firmware, of its machine. Only Command is
// needed.
//
// An update is asked for by the desired property firmware, or by the direct method firmwareUpdate with
// the same object: {"fwVersion", "fwPackageURI", "fwPackageCheckValue", "fwSize"}, where the check value
// is the SHA-256 of the package in hexadecimal digits, and the size may be left out. It is downloaded
// over HTTPS, checked, and given to Command. What goes on is reported as the property firmware, with the
// names of the tutorial "Implement a device firmware update process": fwUpdateStatus is downloading,
// verifying, applying, rebooting, and in the end current, error or rolledback; fwUpdateSubstatus has the
// details. The answer to the method has a requestId, which the report has too while it is about that request.
// The package that runs already is not installed again, unless a Command has failed since.
//
// What was begun goes on after a restart of the agent, with one exception: if it ended while Command
// ran, nobody knows what came of that, and it counts as failed.
type Update struct {
	// Command installs the package. Its environment has IOTDM_UPDATE_FILE, IOTDM_UPDATE_VERSION,
	// IOTDM_UPDATE_SHA256 and IOTDM_UPDATE_PREVIOUS_VERSION; in its Args {file} and {version} stand for
	// the first two. Its input is an object with file, version, sha256 and previousVersion. With the
	// exit status 102 it asks for a reboot, after which the update is done: it is real if there is a
	// RebootCommand, and else somebody's who sees "rebooting" in the twin. Without a Timeout it may take
	// 30 minutes.
	Command Command

	// Rollback, if there is one, brings the previous version back when Command failed. It gets the same.
	Rollback Command

	// Version is what runs before the first update; empty: not known.
	Version string

	// MaxSize is the size of a package in bytes at most; zero is 1 GiB.
	MaxSize int64

	// Patience is how long a download goes on without getting anything; zero is one hour.
	Patience time.Duration

	// TLS says whom to trust when downloading; nil: the system's roots.
	TLS *tls.Config
}

// An updater carries out updates, one at a time.
type updater struct {
	agent  *Agent
	opt    Update
	file   string // of the record
	folder string // of the package
	client *http.Client
	pause  time.Duration // after the first failure of a download
	boot   func() (Boot, error)
	inTurn bool // the agent's turn is that of the update; only for work

	wake wait.Signal // look what there is to do

	mu       sync.Mutex // guards what follows; held while the record is written
	record   updateRecord
	next     *updateJob         // takes the place of what is being downloaded, or waits for the rest
	withdraw context.CancelFunc // ends the download under way; nil: there is none
}

// An updateJob is a request, and the version of the desired properties that it is from; 0: a direct
// method.
type updateJob struct {
	request UpdateRequest
	version int64
}

// handleUpdates makes the agent update what it is told to.
func (a *Agent) handleUpdates() error {
	opt := a.opt.Update
	if opt.Command.isZero() {
		if !opt.Rollback.isZero() {
			return errors.New("a rollback command is of no use without an update command")
		}
		return nil
	}
	if a.opt.Folder == "" {
		return errors.New("updates need a folder, where they are remembered")
	}
	if _, ok := a.opt.OnMethod[updateMethod]; ok {
		return fmt.Errorf("the direct method %s is that of updates; bind no other command to it", updateMethod)
	}
	if opt.Version != "" && !versionForm.MatchString(opt.Version) {
		return fmt.Errorf("%q is not a version: up to 64 letters, digits and . _ + ~ : -", opt.Version)
	}
	opt.Command, opt.Rollback = opt.Command.withTimeout(defaultUpdateTimeout), opt.Rollback.withTimeout(defaultUpdateTimeout)
	opt.MaxSize = cmp.Or(opt.MaxSize, defaultUpdateMaxSize)
	opt.Patience = cmp.Or(opt.Patience, defaultUpdatePatience)
	for _, c := range []Command{opt.Command, opt.Rollback} {
		if c.isZero() {
			continue
		}
		if strings.Contains(c.Script, "{file}") || strings.Contains(c.Script, "{version}") {
			return errors.New(`the shell does not know {file} and {version}; write "$IOTDM_UPDATE_FILE" and "$IOTDM_UPDATE_VERSION"`)
		}
		if err := c.check(); err != nil {
			a.log.Warn("the command of an update cannot run", logError, err)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.DisableCompression = opt.TLS, true
	transport.ResponseHeaderTimeout = downloadStall
	u := &updater{
		agent: a, opt: opt, client: downloadClient(transport), pause: time.Second,
		file: filepath.Join(a.opt.Folder, "update.json"), folder: filepath.Join(a.opt.Folder, "update"),
		wake: wait.NewSignal(), boot: a.opt.Boot,
	}
	if u.boot == nil {
		u.boot = readBoot
	}
	var err error
	if u.record, err = readUpdateRecord(u.file); err != nil {
		a.log.Error("what was known of updates is forgotten", logError, err)
	}
	if u.record.Version == "" {
		u.record.Version = opt.Version
	}
	a.handleMethod(updateMethod, u.answer)
	if err := a.watchDesired(&desiredProperty{path: updateProperty, act: u.act, done: u.done}); err != nil {
		return err
	}
	u.report()
	a.background(u.work)
	return nil
}

// answer takes a request by a direct method. The answer says that it was accepted, no more.
func (u *updater) answer(_ context.Context, m mqttdevice.Method) mqttdevice.Response {
	request, err := parseUpdate(m.Payload, u.opt.MaxSize)
	if err != nil {
		return message(400, err.Error())
	}
	status, text, id := u.accept(updateJob{request, 0})
	answer := map[string]string{"message": text}
	if id != "" {
		answer["requestId"] = id
	}
	return mqttdevice.Response{Status: status, Payload: answer}
}

// act takes a request by a desired property. Its acknowledgement is in the report.
func (u *updater) act(_ context.Context, w wish) {
	if w.value == nil {
		u.withdrawn()
		return
	}
	request, err := parseUpdate(w.value, u.opt.MaxSize)
	if err != nil {
		u.refuse(w.version, err)
		return
	}
	u.accept(updateJob{request, w.version})
}

// done says yes to a desired property that is the last request: what is left of that goes on by itself.
func (u *updater) done(w wish, acknowledged json.RawMessage) bool {
	a, ok := readAck(acknowledged)
	u.mu.Lock()
	defer u.mu.Unlock()
	if w.value == nil { // an acknowledgement may not have come through
		return !ok && u.record.DesiredVersion == 0
	}
	request, err := parseUpdate(w.value, u.opt.MaxSize)
	if err != nil {
		return ok && a.Version == w.version
	}
	if u.record.DesiredVersion == 0 || u.record.Request == nil || *u.record.Request != request {
		return false
	}
	if u.record.DesiredVersion != w.version { // something else has changed
		u.record.DesiredVersion = w.version
		u.save()
	}
	return true
}

// accept begins an update, or says why not, as a status and a text. The id is that of the update which
// is under way for the request, empty if none is.
func (u *updater) accept(job updateJob) (status int, text, id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r, version := &u.record, job.request.Version
	busy := !r.Phase.final() && r.Phase != rebooting
	switch {
	case r.Phase.final() && r.has(job.request):
		u.next = nil
		r.DesiredVersion = job.version
		r.Request, r.Phase, r.Code, r.Detail = &job.request, current, 200, "version "+version+" is installed already"
		u.save()
		return 200, r.Detail, ""
	case u.next == nil && !r.Phase.final() && r.Request.same(job.request):
		if job.version > 0 {
			r.DesiredVersion = job.version
			u.save()
		}
		return 202, fmt.Sprintf("the update to version %s is under way: %s", version, r.Phase), r.ID
	case busy && job.version == 0:
		return 409, fmt.Sprintf("the update to version %s is under way: %s", r.Request.Version, r.Phase), ""
	case job.version == 0 && u.agent.turn.taken():
		return 409, errNotNow.Error(), ""
	}
	if !busy {
		if err := u.begin(job); err != nil {
			return 500, err.Error(), ""
		}
		id = r.ID
	} else {
		u.next = &job // the newest desired property counts
		if u.withdraw != nil {
			u.withdraw()
		}
	}
	u.wake.Set()
	return 202, "the update to version " + version + " has begun", id
}

// begin writes down a request as the one to carry out. u.mu is held.
func (u *updater) begin(job updateJob) error {
	now := time.Now()
	r := updateRecord{Version: u.record.Version, SHA256: u.record.SHA256, ID: rand.Text(), Request: &job.request, DesiredVersion: job.version, Started: now}
	r.enter(downloading, ackInProgress, "", now)
	if err := writeJSON(u.file, &r); err != nil {
		u.agent.log.Error("the update is not stored", logError, err)
		err = fmt.Errorf("the device could not store that it is to update: %w", err)
		u.record.DesiredVersion = job.version
		u.record.enter(failed, 500, err.Error(), now)
		u.report()
		return err
	}
	u.record = r
	u.agent.log.Info("update begins", logUpdate, job.request.Version)
	u.report()
	return nil
}

// refuse acknowledges a desired property that is no request.
func (u *updater) refuse(version int64, why error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.agent.log.Info("update refused", logError, why)
	u.next = nil
	if !u.record.Phase.final() {
		return // the report of what is under way is worth more
	}
	u.record.ID, u.record.Request, u.record.DesiredVersion, u.record.Started, u.record.Times = "", nil, version, time.Time{}, nil
	u.record.enter(failed, 400, clip(why.Error(), maxDescription), time.Now())
	u.save()
}

// withdrawn ends what can be ended when the desired property is gone.
func (u *updater) withdrawn() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next = nil
	if u.record.DesiredVersion == 0 {
		return
	}
	if u.record.Phase == downloading || u.record.Phase == verifying {
		u.record.enter(failed, 0, "withdrawn", time.Now())
		if u.withdraw != nil {
			u.withdraw()
		}
	}
	u.record.DesiredVersion = 0
	u.save()
}

// save writes the record down, and reports it in any case. u.mu is held.
func (u *updater) save() {
	if err := writeJSON(u.file, &u.record); err != nil {
		u.agent.log.Error("the update is not stored", logError, err)
	}
	u.report()
}

// report makes the twin show the record. u.mu is held, or nobody else has u yet.
func (u *updater) report() { u.agent.reporter.set(updateProperty, u.record.report(), nil) }
