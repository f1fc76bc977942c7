package hub

import (
	"slices"
	"testing"
)

// A Tx that deletes a device takes along the modules that it made itself, and
// reports none twice.
func TestATxDeletesWhatItHasLeftOfADevice(t *testing.T) {
	s, end := open(t, "", nil)
	defer end()
	device, older, newer := ID{Device: "d"}, ID{"d", "older"}, ID{"d", "newer"}
	for _, id := range []ID{device, older} {
		if _, err := s.PutIdentity(id, IdentitySpec{}, Match{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Update("d", func(tx *Tx) error {
		if _, err := tx.Create(newer, IdentitySpec{}, nil); err != nil {
			return err
		}
		for _, id := range []ID{older, device} {
			if err := tx.Delete(id, Match{}); err != nil {
				return err
			}
		}
		var gone []ID
		for _, c := range tx.changes {
			if c.kind == deleted {
				gone = append(gone, c.id)
			}
		}
		if want := []ID{older, newer, device}; !slices.Equal(gone, want) {
			t.Errorf("it deleted %v, want %v", gone, want)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []ID{device, older, newer} {
		if _, err := s.Twin(id); err == nil {
			t.Errorf("%s still has a twin", id)
		}
	}
}
