package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/internal/words"
	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// A row is a row of devices.jobs: one device of one job. It is stored as
// the JSON document that a query of devices.jobs returns, so that the query
// reads it where it lies.
type row struct {
	device  string
	status  rowStatus
	counted rowStatus // where the job's statistics have it
	started time.Time
	ended   time.Time
	result  *hub.MethodResult
	failure *hub.Error

	// repeated says that the hub, or the node of the device's connection, stopped
	// while a call of this device was on its way, so that it may have received two:
	// there is no third.
	repeated bool
	// spent says that it stopped during both.
	spent bool
}

func (d row) id() hub.ID { return hub.ID{Device: d.device} }

// A rowStatus is how far a job has come with one device.
type rowStatus string

// The statuses of a row. Here the service writes "canceled" with one l.
const (
	rowPending   rowStatus = "pending"
	rowRunning   rowStatus = "running" // stored before the device is called
	rowCompleted rowStatus = "completed"
	rowFailed    rowStatus = "failed"
	rowCanceled  rowStatus = "canceled"
)

func (s rowStatus) open() bool { return s == rowPending || s == rowRunning }

// encode returns the row's document, as in "Query IoT Hub jobs". Members that
// are not known are left out: the C# SDK has no null for a time.
func (d row) encode(job *Job, now time.Time) []byte {
	b := make([]byte, 0, 384)
	// Ids, times and the hub's own words have nothing that JSON would escape.
	member := func(name, value string) {
		b = append(append(append(b, '"'), name...), `":"`...)
		b = append(append(b, value...), `",`...)
	}
	b = append(b, '{')
	member("deviceId", d.device)
	member("jobId", job.ID)
	member("jobType", string(job.Type))
	member("status", string(d.status))
	if !d.started.IsZero() {
		member("startTimeUtc", twin.FormatTime(d.started))
	}
	if !d.ended.IsZero() {
		member("endTimeUtc", twin.FormatTime(d.ended))
	}
	member("createdDateTimeUtc", twin.FormatTime(job.Created))
	member("lastUpdatedDateTimeUtc", twin.FormatTime(now))
	switch {
	case d.result != nil:
		b = append(b, `"outcome":{"deviceMethodResponse":{"status":`...)
		b = strconv.AppendInt(b, int64(d.result.Status), 10)
		b = append(b, `,"payload":`...)
		if d.result.NotJSON {
			// The row is JSON, whatever the device sent: then it is a text, with
			// what is not UTF-8 replaced. Assumed.
			b = append(b, words.MustMarshal(string(d.result.Payload))...)
		} else {
			b = append(b, d.result.Payload...)
		}
		b = append(b, `}},`...)
	case d.status == rowCompleted:
		b = append(b, `"outcome":{"deviceMethodResponse":null},`...)
	}
	if d.failure != nil {
		b = append(b, `"error":{"code":`...)
		b = append(b, words.MustMarshal(d.failure.Name)...)
		b = append(b, `,"description":`...)
		b = append(b, words.MustMarshal(d.failure.Text)...)
		b = append(b, `},`...)
	}
	if d.repeated {
		b = append(b, `"repeated":true,`...)
	}
	b[len(b)-1] = '}'
	return b
}

// count adds the row to the statistics.
func (s rowStatus) count(n *Statistics, by int) {
	switch s {
	case rowPending:
		n.Pending += by
	case rowRunning:
		n.Running += by
	case rowCompleted:
		n.Succeeded += by
	default:
		n.Failed += by
	}
}

// storedStatus reads the status from a stored row.
func storedStatus(row []byte) rowStatus { return rowStatus(query.JSON(row).Get("status").Chars()) }

// storedRepeated reads whether a stored row is that of a second call.
func storedRepeated(row []byte) bool { return query.JSON(row).Get("repeated").IsTrue() }

// openRows returns up to limit devices of a job, behind the device after, that
// have no outcome yet.
func (s *Scheduler) openRows(job, after string, limit int) (rows []row, err error) {
	prefix := rowsOf(job)
	start := append(rowKey(job, after), 0)
	if after == "" {
		start = prefix
	}
	err = s.store.Scan(start, store.PrefixEnd(prefix), func(k, v []byte) error {
		status := storedStatus(v)
		if !status.open() {
			return nil
		}
		if len(rows) == limit {
			return store.ErrStop
		}
		cut := status == rowRunning
		rows = append(rows, row{
			device: string(k[len(prefix):]), status: status, counted: status,
			repeated: cut, spent: cut && storedRepeated(v),
		})
		return nil
	})
	return rows, err
}

// countRows sets the statistics of a job from its rows.
func (s *Scheduler) countRows(a *activeJob) error {
	n := new(Statistics)
	prefix := rowsOf(a.id)
	err := s.store.Scan(prefix, store.PrefixEnd(prefix), func(_, v []byte) error {
		n.Devices++
		storedStatus(v).count(n, 1)
		return nil
	})
	s.jobs.count(a, n)
	return err
}

// Devices returns the documents of a job's devices, in the order of their ids,
// as a query of devices.jobs returns them.
//
// Errors: ErrJobNotFound.
func (s *Scheduler) Devices(job string) iter.Seq2[json.RawMessage, error] {
	return store.Seq(func(yield func(json.RawMessage) error) error {
		if _, err := s.Get(job); err != nil {
			return err
		}
		prefix := rowsOf(job)
		return s.store.Scan(prefix, store.PrefixEnd(prefix), func(_, row []byte) error {
			return yield(bytes.Clone(row))
		})
	})
}

// outcome makes what came of a device's turn into its row.
func (d *row) outcome(now time.Time, err error) {
	d.ended = now
	if d.status = rowCompleted; err == nil {
		return
	}
	d.status = rowFailed
	if errors.Is(err, errCancelled) {
		d.status = rowCanceled
		return
	}
	d.failure = hub.RefusalOf(err)
}
