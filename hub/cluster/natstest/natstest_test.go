package natstest

import (
	"net/netip"
	"testing"
)

func TestFreeAddressesThatNoConnectionGets(t *testing.T) {
	for range 20 {
		if addr := freeAddr(t); netip.MustParseAddrPort(addr).Port() >= 32768 {
			t.Errorf("a connection may get %s", addr)
		}
	}
}
