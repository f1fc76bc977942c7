package agent

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/iotdm/iotdm/mqttdevice"
)

// keepTold tells the twin whatever it has not been told.
func (m *machineReboot) keepTold(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.untold:
		}
		err := m.tell(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, mqttdevice.ErrConnectionLost) {
			m.a.log.Warn("the reboot is not reported", logError, err)
		}
	}
}

// tell patches the reported properties unless they say it all.
func (m *machineReboot) tell(ctx context.Context) error {
	select {
	case m.telling <- struct{}{}:
		defer func() { <-m.telling }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	patch, changes, told := m.record.patch(), m.changes, m.record.Told
	rebooted := m.record.Request != nil && m.record.Request.Outcome == Rebooted && !m.record.Unasked
	m.mu.Unlock()
	if told {
		return nil
	}
	if _, err := m.a.client.PatchReported(ctx, patch); err != nil {
		return err
	}
	if rebooted {
		m.a.opt.OnEvent(RebootReported)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes == changes {
		m.record.Told = true
		return m.store()
	}
	return nil
}

// recall asks the twin for a reboot that is under way if there is no record: the folder may not have
// survived it.
func (m *machineReboot) recall(ctx context.Context) error {
	m.mu.Lock()
	blank := m.blank
	m.mu.Unlock()
	if !blank {
		return nil
	}
	t, err := m.a.client.Twin(ctx)
	if err != nil {
		return err
	}
	var shown struct{ Reboot RebootRequest }
	known := json.Unmarshal(t.Reported, &shown) == nil // whatever else the property may be
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blank = false
	q := &shown.Reboot
	b := m.record.Boot
	if !known || q.Outcome != Rebooting || m.record.Request != nil || b == (Boot{}) {
		return nil
	}
	m.record.Request = q
	if q.BootID != b.ID || b.ID == "" && b.Time.After(q.RequestedAt) {
		q.end(m.now(), m.record.Boot, Rebooted, "")
		m.a.opt.OnEvent(RebootEnds)
	} else {
		q.end(m.now(), m.record.Boot, NotRebooted, "the agent was started again and had forgotten the reboot; the machine is still up")
	}
	m.save()
	return nil
}

// A rebootStatus is what the status file says of reboots.
type rebootStatus struct {
	Boot    Boot           `json:"boot"`
	Pending bool           `json:"pending"` // one is under way
	Last    *RebootRequest `json:"last,omitempty"`
}

func (m *machineReboot) status() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := rebootStatus{Boot: m.record.Boot, Pending: m.record.Request.pending()}
	if q := m.record.Request; q != nil {
		last := *q
		s.Last = &last
	}
	return s
}
