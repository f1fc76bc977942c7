package provisioning_test

import (
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/node"
	"github.com/iotdm/iotdm/hub/provisioning"
)

// BenchmarkRegister measures registrations of devices that are not known yet, a
// hundred at a time: by an enrollment of their own, and by the last of few groups or
// of as many as there may be.
func BenchmarkRegister(b *testing.B) {
	for _, groups := range []int{1, 100} {
		b.Run(fmt.Sprintf("keys of %d groups", groups), func(b *testing.B) {
			s := newBench(b, node.Options{})
			e := groupByKey("g")
			for n := range groups {
				e.GroupID = fmt.Sprintf("g%03d", n)
				s.put(e)
			}
			m, err := s.AttestationMechanism(provisioning.Group, e.GroupID)
			if err != nil {
				b.Fatal(err)
			}
			s.measure(b, func(id string) provisioning.Peer { return bySAS(b, id, derived(b, m.SymmetricKey.Primary, id)) })
		})
		b.Run(fmt.Sprintf("certificates of %d groups", groups), func(b *testing.B) {
			s := newBench(b, node.Options{})
			var ca tls.Certificate
			for n := range groups {
				ca = issue(fmt.Sprintf("ca-%d", n), nil)
				s.put(groupByCert(fmt.Sprintf("g%03d", n), ca))
			}
			s.measure(b, func(id string) provisioning.Peer { return byCert(id, issue(id, &ca), ca) })
		})
	}
	b.Run("a key of its own", func(b *testing.B) {
		s := newBench(b, node.Options{})
		e := byKey("x")
		e.Attestation.SymmetricKey = &provisioning.SymmetricKey{Primary: "bmV3IGtleSBvZiBzaXh0ZWVuIGJ5dGVz"}
		s.measure(b, func(id string) provisioning.Peer {
			e.RegistrationID = id
			if _, err := s.PutEnrollment(e, hub.Match{}); err != nil {
				b.Fatal(err)
			}
			return bySAS(b, id, e.Attestation.SymmetricKey.Primary)
		})
	})
}

func (s bench) measure(b *testing.B, peer func(id string) provisioning.Peer) {
	b.Helper()
	peers := make([]provisioning.Peer, b.N)
	for n := range peers {
		peers[n] = peer(fmt.Sprintf("dev-%06d", n))
	}
	var next atomic.Int64
	b.SetParallelism(50)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p := peers[next.Add(1)-1]
			if op, err := s.Register(b.Context(), p, provisioning.Request{}); err != nil || op.Status != provisioning.Assigned {
				b.Errorf("%s: %v, %v", p.ID, op.Status, err)
			}
		}
	})
}
