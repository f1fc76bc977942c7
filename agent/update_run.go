package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// work carries out updates until ctx ends; first the one that the last start of the agent left.
func (u *updater) work(ctx context.Context) {
	defer u.client.CloseIdleConnections()
	u.resume()
	for {
		u.carryOn(ctx)
		select {
		case <-ctx.Done():
			return
		case <-u.wake:
		}
	}
}

// resume decides about a command that was running when the agent ended, and about a reboot.
func (u *updater) resume() {
	u.mu.Lock()
	r := u.record
	u.mu.Unlock()
	switch r.Phase {
	case downloading, verifying:
		u.agent.log.Info("update goes on", logUpdate, r.Request.Version, logPhase, r.Phase)
	case applying:
		const why = "the agent ended while the update command ran"
		if u.opt.Rollback.isZero() {
			u.fail(500, why+"; the update may be installed in part")
		} else {
			u.enter(rollingBack, 500, why)
		}
	case rollingBack:
		u.fail(500, r.Detail+"; the agent ended while the rollback command ran")
	case rebooting:
		boot, err := u.boot()
		switch {
		case err != nil:
			u.agent.log.Warn("whether the machine has rebooted is not known", logError, err)
		case boot.same(r.Boot):
			u.enter(rebooting, ackInProgress, cmp.Or(r.Detail, "waiting for a reboot"))
		default:
			u.succeed()
		}
	}
}

// carryOn goes through the phases until there is nothing to do, or ctx ends.
func (u *updater) carryOn(ctx context.Context) {
	for ctx.Err() == nil {
		u.mu.Lock()
		if u.record.Phase.final() || u.record.Phase == rebooting {
			u.endTurn()
			if u.next == nil {
				over := u.record.Phase.final()
				u.mu.Unlock()
				if over {
					u.clear() // what an earlier start left; a reboot may still need it
				}
				return
			}
			job := *u.next
			u.next = nil
			err := u.begin(job)
			u.mu.Unlock()
			if err != nil {
				return
			}
			continue
		}
		r := u.record
		u.mu.Unlock()
		switch r.Phase {
		case downloading:
			u.download(ctx, r)
		case verifying:
			u.verify(ctx, r)
		case applying:
			u.apply(ctx, r)
		case rollingBack:
			u.rollBack(ctx, r)
		}
	}
}

// enter begins a phase, unless the update has been withdrawn meanwhile. If that cannot be written down,
// the update has failed: a restart would not know.
func (u *updater) enter(p phase, code int, detail string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.record.Phase.final() {
		return
	}
	before := u.record
	u.record.enter(p, code, clip(detail, maxDescription), time.Now())
	if err := writeJSON(u.file, &u.record); err != nil {
		u.agent.log.Error("the update is not stored", logError, err)
		if !p.final() {
			u.record = before
			u.record.enter(failed, 500, clip(err.Error(), maxDescription), time.Now())
		}
	}
	u.agent.log.Info("update", logUpdate, u.record.Request.Version, logPhase, u.record.Phase, logDetail, u.record.Detail)
	if u.record.Phase.final() {
		u.clear() // before it is told
		u.endTurn()
	}
	u.report()
}

// takeTurn waits until nothing else changes the machine. It reports false if ctx ends before.
func (u *updater) takeTurn(ctx context.Context) bool {
	if !u.inTurn {
		u.inTurn = u.agent.turn.wait(ctx)
	}
	return u.inTurn
}

func (u *updater) endTurn() {
	if u.inTurn {
		u.inTurn = false
		u.agent.turn.end()
	}
}

func (u *updater) fail(code int, detail string) { u.enter(failed, code, detail) }

// succeed ends an update that is installed.
func (u *updater) succeed() {
	u.mu.Lock()
	u.record.Version, u.record.SHA256, u.record.Validator = u.record.Request.Version, u.record.Request.SHA256, ""
	u.mu.Unlock()
	u.enter(current, 200, "")
}

// clear removes what was downloaded.
func (u *updater) clear() {
	if err := os.RemoveAll(u.folder); err != nil {
		u.agent.log.Warn("the package of an update is not removed", logError, plainPathError(err))
	}
}

func (u *updater) packageFile(r updateRecord) string {
	return filepath.Join(u.folder, r.Request.fileName())
}

// partFile has what was downloaded until its SHA-256 has been checked.
func (u *updater) partFile() string { return filepath.Join(u.folder, ".part") }

func (u *updater) download(parent context.Context, r updateRecord) {
	if r.Validator == "" {
		u.clear()
	}
	if err := os.MkdirAll(u.folder, 0o700); err != nil {
		u.fail(500, plainPathError(err).Error())
		return
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	u.mu.Lock()
	u.withdraw = cancel
	if u.next != nil || u.record.Phase != downloading {
		cancel()
	}
	u.mu.Unlock()
	var reported time.Time
	percent := -1
	d := &download{
		client: u.client, url: r.Request.URL, file: u.partFile(), size: r.Request.Size, limit: u.opt.MaxSize,
		validator: r.Validator, patience: u.opt.Patience, pause: u.pause, stall: downloadStall,
		store: func(validator string) error {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.record.Validator = validator
			return writeJSON(u.file, &u.record)
		},
		progress: func(done, total int64) {
			if total <= 0 || time.Since(reported) < progressEvery || int(done*100/total) == percent {
				return
			}
			reported, percent = time.Now(), int(done*100/total)
			u.mu.Lock()
			defer u.mu.Unlock()
			if u.record.Phase == downloading {
				u.record.Detail = fmt.Sprintf("%d%%", percent)
				u.report()
			}
		},
	}
	err := d.run(ctx)

	u.mu.Lock()
	u.withdraw = nil
	superseded := u.record.Phase != downloading || u.next != nil
	if superseded && u.next != nil {
		u.record.enter(failed, 500, "another update was asked for", time.Now())
	}
	u.mu.Unlock()
	switch {
	case superseded: // and over
	case parent.Err() != nil: // the next start goes on
	case err != nil:
		u.fail(500, "download: "+err.Error())
	default:
		u.enter(verifying, ackInProgress, "")
	}
}

func (u *updater) verify(ctx context.Context, r updateRecord) {
	file := u.partFile()
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		file = u.packageFile(r) // the agent ended right after the renaming below
	}
	sum, err := fileSHA256(ctx, file)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		u.fail(500, err.Error())
	case sum != r.Request.SHA256:
		u.fail(500, fmt.Sprintf("the package is not the one that was asked for: its SHA-256 is %s", sum))
	case u.takeTurn(ctx):
		if err := os.Rename(file, u.packageFile(r)); err != nil {
			u.fail(500, err.Error())
			return
		}
		u.enter(applying, ackInProgress, "")
	}
}

func (u *updater) apply(ctx context.Context, r updateRecord) {
	result := u.run(ctx, u.opt.Command, r)
	switch {
	case ctx.Err() != nil && result.err != nil: // the next start says so
	case result.err == nil:
		u.succeed()
	case result.wantsReboot():
		u.reboot()
	case u.opt.Rollback.isZero():
		u.fail(result.status(), "the update command failed: "+result.text())
	default:
		u.enter(rollingBack, result.status(), "the update command failed: "+result.text())
	}
}

func (u *updater) rollBack(ctx context.Context, r updateRecord) {
	if !u.takeTurn(ctx) { // which it has, unless this is what an earlier start left
		return
	}
	result := u.run(ctx, u.opt.Rollback, r)
	switch {
	case ctx.Err() != nil && result.err != nil:
	case result.err == nil:
		u.enter(rolledBack, r.Code, r.Detail)
	default:
		u.fail(500, r.Detail+"; the rollback command failed: "+result.text())
	}
}

// reboot lets the machine reboot, which ends the update.
func (u *updater) reboot() {
	boot, err := u.boot()
	if err != nil {
		u.fail(500, err.Error())
		return
	}
	u.mu.Lock()
	u.record.Boot = boot
	u.mu.Unlock()
	if u.agent.reboots == nil {
		u.enter(rebooting, ackInProgress, "waiting for somebody to reboot the machine")
		return
	}
	u.enter(rebooting, ackInProgress, "")
	if err := u.agent.rebootFor(updateMethod); err != nil {
		u.fail(500, "the update needs a reboot: "+err.Error())
		return
	}
	u.inTurn = false // but the reboot's
}

// run runs a command of an update.
func (u *updater) run(ctx context.Context, c Command, r updateRecord) result {
	file := u.packageFile(r)
	if c.Script == "" {
		words := strings.NewReplacer("{file}", file, "{version}", r.Request.Version)
		args := make([]string, len(c.Args))
		for i, arg := range c.Args {
			args[i] = words.Replace(arg)
		}
		c.Args = args
	}
	input, err := json.Marshal(map[string]string{
		"file": file, "version": r.Request.Version, "sha256": r.Request.SHA256, "previousVersion": r.Version,
	})
	if err != nil {
		return result{exit: -1, err: errors.New("the version cannot be told to the command")}
	}
	return c.run(ctx, input, u.agent.commandEnv(
		"IOTDM_UPDATE_FILE="+file,
		"IOTDM_UPDATE_VERSION="+r.Request.Version,
		"IOTDM_UPDATE_SHA256="+r.Request.SHA256,
		"IOTDM_UPDATE_PREVIOUS_VERSION="+r.Version,
	), noOutput)
}
