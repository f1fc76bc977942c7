package bulk

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
	"github.com/iotdm/iotdm/internal/phrase"
)

// An EnrollmentImport applies the lines of a file to a provisioning service. It reads
// as many lines as its requests have room for, looks what they would change, sends
// what changes something, and goes on with the next lines: memory is bounded, whatever
// the file.
type EnrollmentImport struct {
	Client   *hubrest.ProvisioningClient
	Kind     hubrest.EnrollmentKind
	Lines    EnrollmentReader
	Mode     hubrest.ImportMode  // of lines without one; see EnrollmentModeNamed
	DryRun   bool                // only find out what would be done
	FromLine int                 // leave out those before
	Parallel int                 // requests at a time, at least 1
	Paused   func(time.Duration) // hears of each pause that a busy hub makes it take; nil: nobody

	// Report is called for each line once, when it is known what became of it.
	// An error ends the import.
	Report func(LineResult) error

	// What came of it so far. Broken is why the file could not be read to its
	// end.
	Counts Counts
	Broken error

	throttle *throttle
	read     int  // the last line that was read
	unsent   int  // the first line that was not done; 0 is none
	ended    bool // nothing more is read
	held     []lineOf[enrollmentEntry]
}

// An enrollmentLine is a line with what is known of it.
type enrollmentLine struct {
	lineOf[enrollmentEntry]
	result LineResult
	now    *hubrest.Enrollment    // what there is; nil is nothing
	mode   hubrest.EnrollmentMode // of the request
}

// Run imports the lines, as Import.Run does.
func (im *EnrollmentImport) Run(ctx context.Context) error {
	im.throttle = &throttle{paused: im.Paused}
	im.Counts.what = phrase.Choose(im.Kind == hubrest.Group, "enrollment group", "enrollment")
	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastRequests, cancel) })()
	for {
		lines := im.next()
		if len(lines) == 0 {
			return im.Broken
		}
		err := im.do(ctx, requests, lines)
		for _, l := range lines {
			if l.result.Result == "" {
				im.unsent = cmp.Or(im.unsent, l.number)
				continue
			}
			im.Counts.add(l.result)
			if err := im.Report(l.result); err != nil {
				return err
			}
		}
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
	}
}

// Resume returns the first line that was not done.
func (im *EnrollmentImport) Resume() int {
	if im.unsent > 0 {
		return im.unsent
	}
	first := im.read + 1
	for _, l := range im.held {
		first = min(first, l.number)
	}
	return first
}

// next reads the lines of the next requests, none of which is about the same
// enrollment as another.
func (im *EnrollmentImport) next() (lines []*enrollmentLine) {
	names := make(map[string]bool)
	bytes := 0
	for len(lines) < hubrest.MaxBulkEnrollments*im.Parallel && bytes < maxBatchBytes {
		var l lineOf[enrollmentEntry]
		if len(im.held) > 0 {
			l, im.held = im.held[0], nil
		} else {
			if im.ended {
				return lines
			}
			var err error
			if l, err = im.Lines.next(); err != nil {
				if im.ended = true; !errors.Is(err, io.EOF) {
					im.Broken = err
				}
				return lines
			}
			im.read = l.number
		}
		if l.number < im.FromLine {
			continue
		}
		name := strings.ToLower(l.entry.ID())
		if l.err == nil && names[name] {
			im.held = []lineOf[enrollmentEntry]{l}
			return lines
		}
		names[name] = true
		l.entry.ImportMode = cmp.Or(l.entry.ImportMode, im.Mode)
		bytes += 1024
		if t := l.entry.InitialTwin; t != nil {
			bytes += len(t.Tags) + len(t.Properties.Desired)
		}
		lines = append(lines, &enrollmentLine{lineOf: l, result: LineResult{Line: l.number, ID: l.entry.ID(), Mode: l.entry.ImportMode}})
	}
	return lines
}

// do finds out what lines would do, and does it.
func (im *EnrollmentImport) do(ctx, requests context.Context, lines []*enrollmentLine) error {
	if err := im.look(ctx, lines); err != nil {
		return err
	}
	byMode := make(map[hubrest.EnrollmentMode][]*enrollmentLine)
	for _, l := range lines {
		if l.foresee(im.DryRun); l.result.Result == "" {
			byMode[l.mode] = append(byMode[l.mode], l)
		}
	}
	var wg sync.WaitGroup
	turns := make(chan struct{}, im.Parallel)
	var mu sync.Mutex
	var failure error
	for mode, todo := range byMode {
		for batch := range slices.Chunk(todo, hubrest.MaxBulkEnrollments) {
			turns <- struct{}{}
			wg.Go(func() {
				defer func() { <-turns }()
				if err := im.send(ctx, requests, mode, batch); err != nil {
					mu.Lock()
					failure = cmp.Or(failure, err)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return failure
}

// look reads what there is of the enrollments that lines are about.
func (im *EnrollmentImport) look(ctx context.Context, lines []*enrollmentLine) error {
	const atATime = 8
	turns := make(chan struct{}, atATime)
	errs := make([]error, len(lines))
	var wg sync.WaitGroup
	for n, l := range lines {
		mode := l.entry.ImportMode
		if l.err != nil || !im.DryRun && (mode == hubrest.ImportCreate || mode == hubrest.ImportDelete) { // the answer tells all
			continue
		}
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			errs[n] = im.throttle.do(ctx, func() (err error) {
				l.now, err = readEnrollment(ctx, im.Client, im.Kind, l.entry.ID(), mode != hubrest.ImportDelete)
				return err
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// readEnrollment returns an enrollment, with its keys if they are wanted, or nil if
// there is none.
func readEnrollment(ctx context.Context, client *hubrest.ProvisioningClient, kind hubrest.EnrollmentKind, id string, keys bool) (*hubrest.Enrollment, error) {
	e, err := client.Enrollment(ctx, kind, id)
	if err == nil && keys && e.Attestation.Type == hubrest.BySymmetricKey {
		var a hubrest.Attestation
		if a, err = client.AttestationMechanism(ctx, kind, id); err == nil {
			e.Attestation.SymmetricKey = a.SymmetricKey
		}
	}
	if errors.Is(err, hubrest.ErrNotFound) {
		return nil, nil
	}
	return &e, err
}

// send makes a request for lines, and says what became of each. An error is why the
// import has to end.
func (im *EnrollmentImport) send(ctx, requests context.Context, mode hubrest.EnrollmentMode, lines []*enrollmentLine) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	list := make([]hubrest.Enrollment, 0, len(lines))
	for _, l := range lines {
		list = append(list, wireEnrollment(l.entry, mode))
	}
	var result hubrest.EnrollmentBulkResult
	err := im.throttle.do(ctx, func() (err error) {
		result, err = im.Client.BulkEnrollments(requests, im.Kind, mode, list)
		return err
	})
	if refusal, ok := errors.AsType[*hubrest.Error](err); ok && (refusal.Status == 400 || refusal.Status == 413) {
		// The service refuses the whole for one of them. Which one?
		if len(lines) == 1 {
			lines[0].result.fail("failed", refusal.Code, enrollmentReason(refusal.Code, refusal.Message))
			return nil
		}
		half := len(lines) / 2
		if err := im.send(ctx, requests, mode, lines[:half]); err != nil {
			return err
		}
		return im.send(ctx, requests, mode, lines[half:])
	}
	if err != nil {
		return err // no line has a result: nobody knows
	}
	failed := make(map[string]hubrest.EnrollmentBulkError, len(result.Errors))
	for _, e := range result.Errors {
		failed[strings.ToLower(e.ID)] = e
	}
	for _, l := range lines {
		if e, wrong := failed[strings.ToLower(l.entry.ID())]; wrong {
			l.result.fail("failed", e.Code, enrollmentReason(e.Code, e.Message))
		} else {
			l.result.Result = l.result.did
		}
	}
	return nil
}

// enrollmentReason words a refusal of one enrollment.
func enrollmentReason(code int, message string) string {
	switch code / 1000 {
	case 404:
		return "does not exist"
	case 409:
		return "exists already"
	case 412:
		return "its etag is another one: it was changed by somebody else"
	}
	return cmp.Or(message, "refused")
}
