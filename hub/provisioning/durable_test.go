package provisioning_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/clock"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
)

func TestAHubThatIsOpenedAgainKnowsItsDevices(t *testing.T) {
	dir := t.TempDir()
	open := func() (bench, func()) {
		n, err := node.New(node.Options{Storage: node.Folder(dir), IDScope: scope})
		if err != nil {
			t.Fatal(err)
		}
		return bench{n.Provisioning, t, n}, func() {
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, end := open()
	ca := issue("factory", nil)
	key := b.put(groupByKey("keys")).Attestation.SymmetricKey.Primary
	b.put(groupByCert("certificates", ca))
	b.put(byKey("own"))
	byGroup := bySAS(t, "a", derived(t, key, "a"))
	first := b.register(byGroup, provisioning.Assigned)
	leaf := issue("b", &ca)
	b.register(byCert("b", leaf), provisioning.Assigned)
	end()

	b, end = open()
	defer end()
	if got, err := b.Registration("a"); err != nil || got.ETag != first.ETag || got.Hub != first.Hub {
		t.Errorf("its registration is %+v, %v, and was %+v", got, err, first)
	}
	if b.identity("a").Auth.SymmetricKey.Primary != derived(t, key, "a") {
		t.Errorf("the device has another key")
	}
	b.register(byGroup, provisioning.Assigned)
	b.register(byCert("b", leaf), provisioning.Assigned)
	if got := b.metric("iotdm_hub_enrollments", "group"); got != 2 {
		t.Errorf("%v groups are counted", got)
	}
	if got := b.metric("iotdm_hub_enrollments", "individual"); got != 1 {
		t.Errorf("%v enrollments are counted", got)
	}
}

func TestAResetForgetsEnrollments(t *testing.T) {
	b := newBench(t, node.Options{Clock: clock.New(), TestControls: true})
	key := b.put(groupByKey("g")).Attestation.SymmetricKey.Primary
	own := b.put(byKey("own")).Attestation.SymmetricKey.Primary
	p := bySAS(t, "a", derived(t, key, "a"))
	b.register(p, provisioning.Assigned)
	b.register(bySAS(t, "own", own), provisioning.Assigned)
	if _, err := b.hub.Controls.SaveSnapshot("with"); err != nil {
		t.Fatal(err)
	}
	if err := b.hub.Controls.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "after a reset", b.refused(p), 404201, "no enrollment a")
	if _, err := b.Registration("a"); code(err) != 404 {
		t.Errorf("registration: %v", err)
	}
	if got := b.metric("iotdm_hub_enrollments", "group") + b.metric("iotdm_hub_enrollments", "individual"); got != 0 {
		t.Errorf("%v enrollments are counted", got)
	}
	if err := b.hub.Controls.LoadSnapshot(t.Context(), "with"); err != nil {
		t.Fatal(err)
	}
	b.register(p, provisioning.Assigned)
	b.register(bySAS(t, "own", own), provisioning.Assigned)
}

func TestWhatIsCounted(t *testing.T) {
	b := newBench(t, node.Options{})
	key := b.put(byKey("a")).Attestation.SymmetricKey.Primary
	p := bySAS(t, "a", key)
	b.register(p, provisioning.Assigned)
	b.change(provisioning.Individual, "a", func(e *provisioning.Enrollment) { e.Status = hub.StatusDisabled })
	b.register(p, provisioning.Disabled)
	b.refused(bySAS(t, "b", key)) // and once more to compare
	p.Scope = "0neFFFFFFFF"
	b.refused(p)
	for _, c := range []struct {
		name, label string
		want        float64
	}{
		{"iotdm_hub_registrations_total", "assigned", 1}, {"iotdm_hub_registrations_total", "disabled", 1}, {"iotdm_hub_registrations_total", "failed", 0},
		{"iotdm_hub_registration_refusals_total", "not_enrolled", 2}, {"iotdm_hub_registration_refusals_total", "id_scope", 2},
		{"iotdm_hub_registration_refusals_total", "unauthorized", 0}, {"iotdm_hub_enrollments", "individual", 1},
	} {
		if got := b.metric(c.name, c.label); got != c.want {
			t.Errorf("%s of %s is %v, want %v", c.name, c.label, got, c.want)
		}
	}
}

// metric returns the value of a metric with a label's value.
func (b bench) metric(name, label string) float64 {
	b.t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(b.Metrics()...)
	families, err := r.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && hasLabel(m, label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	b.t.Fatalf("there is no %s of %s", name, label)
	return 0
}

func hasLabel(m *dto.Metric, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetValue() == value {
			return true
		}
	}
	return false
}

func TestGroupsThatShareAKeyAreTold(t *testing.T) {
	var log bytes.Buffer
	b := newBench(t, node.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ca, other := issue("a", nil), issue("b", nil)
	b.put(groupByCert("first", ca))
	b.put(groupByCert("another", other))
	key := b.put(groupByKey("k1")).Attestation.SymmetricKey
	b.put(groupByKey("k2"))
	if strings.Contains(log.String(), "same key") {
		t.Errorf("before there is anything to tell: %s", &log)
	}
	b.put(groupByCert("Second", other, ca))
	e := groupByKey("k0")
	e.Attestation.SymmetricKey = &provisioning.SymmetricKey{Primary: key.Secondary}
	b.put(e)
	for _, want := range []string{`enrollment=first reason="so has second"`, `enrollment=another reason="so has second"`, `enrollment=k0 reason="so has k1"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s: %s", want, &log)
		}
	}
	b.register(bySAS(t, "d", derived(t, key.Secondary, "d")), provisioning.Assigned)
	if list, _, err := b.Registrations("k0", "", 0); err != nil || len(list) != 1 {
		t.Errorf("by the first: %+v, %v", list, err)
	}
	b.register(byCert("e", issue("e", &ca)), provisioning.Assigned)
	if list, _, err := b.Registrations("first", "", 0); err != nil || len(list) != 1 {
		t.Errorf("by the first: %+v, %v", list, err)
	}
	for _, secret := range []string{string(key.Primary), string(key.Secondary)} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("a secret shows: %s", &log)
		}
	}
	if !strings.Contains(log.String(), "a device is registered") || !strings.Contains(log.String(), "registration=e enrollment=first reason=initialAssignment id=e remote=192.0.2.1:1") {
		t.Errorf("the log does not tell of a registration: %s", &log)
	}
}
