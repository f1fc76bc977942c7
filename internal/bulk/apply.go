package bulk

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/iotdm/iotdm/hubrest"
)

// apply makes the request for the lines todo of the batch. ctx ends the waits
// between requests, and requests those under way.
func (im *Import) apply(ctx, requests context.Context, b outcome, todo []int) error {
	entries := make([]hubrest.BulkEntry, 0, len(todo))
	for _, i := range todo {
		entries = append(entries, wireEntry(b.lines[i].entry))
	}
	result, err := im.bulk(ctx, requests, entries)
	if refusal, ok := errors.AsType[*hubrest.Error](err); ok && (refusal.Status == 400 || refusal.Status == 413) {
		// The hub refuses the whole for one of them. Which one?
		if len(todo) == 1 {
			b.results[todo[0]].fail("failed", refusal.Code, reasonOf(refusal.Code, refusal.Name, refusal.Message))
			return nil
		}
		half := len(todo) / 2
		if err := im.apply(ctx, requests, b, todo[:half]); err != nil {
			return err
		}
		return im.apply(ctx, requests, b, todo[half:])
	}
	if err != nil {
		return err // no line has a result: nobody knows
	}
	failed := make(map[hubrest.Target]hubrest.BulkError, len(result.Errors))
	for _, e := range result.Errors {
		failed[hubrest.Target{DeviceID: e.DeviceID, ModuleID: e.ModuleID}] = e
	}
	var again []int
	for _, i := range todo {
		r := &b.results[i]
		e, wrong := failed[hubrest.Target{DeviceID: r.ID, ModuleID: r.ModuleID}]
		switch {
		case !wrong:
			r.Result = cmp.Or(r.did, "done")
		case e.Code/1000 == 429 || strings.HasPrefix(e.Name, "Throttl"):
			again = append(again, i)
		default:
			r.fail("failed", e.Code, reasonOf(e.Code, e.Name, e.Message))
		}
	}
	if len(again) == 0 {
		return nil
	}
	im.throttle.refused()
	return im.apply(ctx, requests, b, again)
}

// bulk makes a request, again and again while that can do no harm.
func (im *Import) bulk(ctx, requests context.Context, entries []hubrest.BulkEntry) (result hubrest.BulkResult, err error) {
	const attempts = 4
	for n := 1; ; n++ {
		err = im.throttle.do(ctx, func() (err error) {
			result, err = im.Client.Bulk(requests, entries)
			return err
		})
		refusal, answered := errors.AsType[*hubrest.Error](err)
		if err == nil || answered && refusal.Status < 500 || n == attempts || ctx.Err() != nil {
			return result, err
		}
		if slices.ContainsFunc(entries, func(e hubrest.BulkEntry) bool { return !repeatableModes[e.ImportMode] }) {
			return result, err
		}
		im.throttle.refused()
	}
}

// repeatableModes are the modes that come to the same when they are done twice.
var repeatableModes = map[hubrest.ImportMode]bool{
	hubrest.ImportUpdate: true, hubrest.ImportCreateOrUpdate: true, hubrest.ImportUpdateTwin: true,
}

// wireEntry is what a request says of an entry: what its mode has no use for
// stays here.
func wireEntry(e hubrest.BulkEntry) hubrest.BulkEntry {
	switch {
	case deletes(e.ImportMode):
		return hubrest.BulkEntry{ID: e.ID, ModuleID: e.ModuleID, ETag: e.ETag, ImportMode: e.ImportMode}
	case changesOnlyTwin(e.ImportMode):
		return hubrest.BulkEntry{ID: e.ID, ModuleID: e.ModuleID, TwinETag: e.TwinETag, ImportMode: e.ImportMode,
			Tags: e.Tags, Properties: hubrest.BulkProperties{Desired: e.Properties.Desired}}
	case isSystem(e):
		// They come with their device, and only their twins can be changed.
		return hubrest.BulkEntry{ID: e.ID, ModuleID: e.ModuleID, ImportMode: hubrest.ImportUpdateTwin,
			Tags: e.Tags, Properties: hubrest.BulkProperties{Desired: e.Properties.Desired}}
	}
	e.TwinETag = ""
	return e
}

// reasonOf words a refusal of one entry.
func reasonOf(code int, name, message string) string {
	switch {
	case code == 409001 || name == "DeviceAlreadyExists", code == 409301 || name == "ModuleAlreadyExistsOnDevice":
		return "exists already"
	case code == 404001 || name == "DeviceNotFound":
		return "the device does not exist"
	case code == 404010 || name == "ModuleNotFound":
		return "the module does not exist"
	case code == 412001 || name == "PreconditionFailed":
		return "its etag is another one: it was changed by somebody else"
	}
	return cmp.Or(message, name, "refused")
}
