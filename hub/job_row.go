package hub

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/iotdm/iotdm/hub/query"
	"github.com/iotdm/iotdm/hub/store"
	"github.com/iotdm/iotdm/twin"
)

// A jobDevice is a row of devices.jobs: one device of one job. It is stored as
// the JSON document that a query of devices.jobs returns, so that the query
// reads it where it lies.
type jobDevice struct {
	device  string
	status  jobDeviceStatus
	counted jobDeviceStatus // where the job's statistics have it
	started time.Time
	ended   time.Time
	result  *MethodResult
	failure *Error

	// repeated says that the hub stopped while a call of this device was on
	// its way, so that it may have received two.
	repeated bool
}

func (d jobDevice) id() ID { return ID{Device: d.device} }

// jobDeviceStatus is how far a job has come with one device.
type jobDeviceStatus string

// The statuses of a row. Here the service writes "canceled" with one l.
const (
	rowPending   jobDeviceStatus = "pending"
	rowRunning   jobDeviceStatus = "running" // stored before the device is called
	rowCompleted jobDeviceStatus = "completed"
	rowFailed    jobDeviceStatus = "failed"
	rowCanceled  jobDeviceStatus = "canceled"
)

func (s jobDeviceStatus) open() bool { return s == rowPending || s == rowRunning }

// encode returns the row's document, as in "Query IoT Hub jobs". Members that
// are not known are left out: the C# SDK has no null for a time.
func (d jobDevice) encode(job *Job, now time.Time) []byte {
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
		b = append(b, d.result.Payload...)
		b = append(b, `}},`...)
	case d.status == rowCompleted:
		b = append(b, `"outcome":{"deviceMethodResponse":null},`...)
	}
	if d.failure != nil {
		b = append(b, `"error":{"code":`...)
		b = append(b, mustMarshal(d.failure.Name)...)
		b = append(b, `,"description":`...)
		b = append(b, mustMarshal(d.failure.Text)...)
		b = append(b, `},`...)
	}
	if d.repeated {
		b = append(b, `"repeated":true,`...)
	}
	b[len(b)-1] = '}'
	return b
}

// count adds the row to the statistics.
func (s jobDeviceStatus) count(n *JobStatistics, by int) {
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

// rowStatus reads the status from a stored row.
func rowStatus(row []byte) jobDeviceStatus {
	return jobDeviceStatus(query.JSON(row).Get("status").Chars())
}

// openRows returns up to limit devices of a job, behind the device after, that
// have no outcome yet.
func (s *Server) openRows(job, after string, limit int) (rows []jobDevice, err error) {
	prefix := jobRows(job)
	start := append(jobRow(job, after), 0)
	if after == "" {
		start = prefix
	}
	err = s.store.Scan(start, prefixEnd(prefix), func(k, v []byte) error {
		status := rowStatus(v)
		if !status.open() {
			return nil
		}
		if len(rows) == limit {
			return store.ErrStop
		}
		rows = append(rows, jobDevice{device: string(k[len(prefix):]), status: status, counted: status, repeated: status == rowRunning})
		return nil
	})
	return rows, err
}

// countRows sets the statistics of a job from its rows.
func (s *Server) countRows(a *activeJob) error {
	n := new(JobStatistics)
	prefix := jobRows(a.id)
	err := s.store.Scan(prefix, prefixEnd(prefix), func(_, v []byte) error {
		n.Devices++
		rowStatus(v).count(n, 1)
		return nil
	})
	s.jobs.count(a, n)
	return err
}

// JobDevices calls fn with the documents of a job's devices, in the order of
// their ids, as a query of devices.jobs returns them. An error of fn ends the
// walk and is returned.
//
// Errors: ErrJobNotFound.
func (s *Server) JobDevices(job string, fn func(json.RawMessage) error) error {
	if _, err := s.Job(job); err != nil {
		return err
	}
	prefix := jobRows(job)
	return s.store.Scan(prefix, prefixEnd(prefix), func(_, row []byte) error {
		return fn(append(json.RawMessage(nil), row...))
	})
}

// outcome makes what came of a device's turn into its row.
func (d *jobDevice) outcome(now time.Time, err error) {
	d.ended = now
	if d.status = rowCompleted; err == nil {
		return
	}
	d.status = rowFailed
	if errors.Is(err, errJobCancelled) {
		d.status = rowCanceled
		return
	}
	d.failure = refusalOf(err)
}
