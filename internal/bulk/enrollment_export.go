package bulk

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"sync"
	"time"

	"github.com/iotdm/iotdm/hubrest"
)

// An EnrollmentExport writes the enrollments of a kind.
type EnrollmentExport struct {
	Client *hubrest.ProvisioningClient
	Kind   hubrest.EnrollmentKind
	Keys   bool                // read the keys too: a request for each enrollment that has some
	Paused func(time.Duration) // hears of each pause that a busy hub makes it take; nil: nobody
	Wrote  func()              // called for each enrollment
	Count  int                 // of those that are written

	throttle *throttle
}

// Run writes all enrollments to w in a format: "csv", or else lines of JSON.
// Certificates are not among what is written: no service gives them out.
func (ex *EnrollmentExport) Run(ctx context.Context, w io.Writer, format string) error {
	ex.throttle = &throttle{paused: ex.Paused}
	writer, err := ex.writer(w, format)
	if err != nil {
		return err
	}
	var window []enrollmentEntry
	for e, err := range ex.Client.Enrollments(ctx, ex.Kind, 0) {
		if err != nil {
			return err
		}
		e.RegistrationState, e.Created, e.LastUpdated = nil, hubrest.Time{}, hubrest.Time{}
		if !ex.Keys {
			e.Attestation.SymmetricKey = nil
		}
		if window = append(window, enrollmentEntry{Enrollment: e}); len(window) < exportWindow {
			continue
		}
		if err := ex.write(ctx, writer, window); err != nil {
			return err
		}
		window = window[:0]
	}
	return cmp.Or(ex.write(ctx, writer, window), writer.Flush())
}

func (ex *EnrollmentExport) writer(w io.Writer, format string) (writerOf[enrollmentEntry], error) {
	if format == "csv" {
		return newCSVWriter(w, enrollmentTable(ex.Kind), ex.Keys)
	}
	return &ndjsonWriter[enrollmentEntry]{bufio.NewWriterSize(w, 64<<10)}, nil
}

// write writes entries in their order, with their keys if these are wanted.
func (ex *EnrollmentExport) write(ctx context.Context, w writerOf[enrollmentEntry], entries []enrollmentEntry) error {
	errs := make([]error, len(entries))
	gone := make([]bool, len(entries))
	var wg sync.WaitGroup
	for i := range entries {
		e := &entries[i]
		if !ex.Keys || e.Attestation.Type != hubrest.BySymmetricKey {
			continue
		}
		wg.Go(func() {
			errs[i] = ex.throttle.do(ctx, func() error {
				now, err := readEnrollment(ctx, ex.Client, ex.Kind, e.ID(), true)
				if gone[i] = err == nil && now == nil; now != nil {
					e.Attestation = now.Attestation
				}
				return err
			})
		})
	}
	wg.Wait()
	if err := cmp.Or(errs...); err != nil {
		return err
	}
	for i := range entries {
		if gone[i] {
			continue
		}
		if err := w.write(&entries[i]); err != nil {
			return err
		}
		ex.Count++
		ex.Wrote()
	}
	return ctx.Err()
}
