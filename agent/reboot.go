package agent

import (
	"context"

	"github.com/iotdm/iotdm/agent/tutorial"
)

// handleReboots sets the handlers of the methods that reboot, for real or not.
func (a *Agent) handleReboots() error {
	handler := (&simulatedReboot{a: a, duration: a.opt.RebootDuration}).reboot
	if a.opt.RebootCommand != "" {
		m, err := newMachineReboot(a)
		if err != nil {
			return err
		}
		a.reboots, handler = m, m.handle
		a.background(m.work)
		a.background(m.keepTold)
		a.describe("reboot", m.status)
		a.onConnected(func(ctx context.Context) error {
			m.settle() // the clock may have been set
			m.untold.Set()
			return m.recall(ctx)
		})
	}
	for _, name := range tutorial.Methods() {
		a.handleMethod(name, handler)
	}
	return nil
}

// rebootFor reboots the machine for a method that has been answered, and whose turn it is; that is the
// reboot's if there is no error. It is for real reboots only.
func (a *Agent) rebootFor(method string) error {
	_, err := a.reboots.request(method, true)
	if err == nil {
		a.reboots.answered(nil)
	}
	return err
}
