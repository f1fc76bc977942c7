package natsevents

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func FuzzMessages(f *testing.F) {
	var p packer
	batch := appendRecord(appendRecord(nil, []byte("a")), nil)
	f.Add(batch)
	f.Add(bytes.Clone(p.pack(appendRecord(batch, []byte(strings.Repeat("x", minPacked))))))
	f.Add([]byte{compressed, 1, 2, 3})
	f.Add([]byte{plain, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, message []byte) {
		// What can be read is the same when it is written again.
		var batch []byte
		n := int64(0)
		err := new(packer).records(message, func(i int64, data []byte) error {
			if i != n {
				t.Errorf("record %d comes as %d", n, i)
			}
			n++
			batch = appendRecord(batch, data)
			return nil
		})
		if err != nil && !errors.Is(err, errDamaged) {
			t.Error(err)
		}
		if n == 0 {
			return
		}
		if got := count(new(packer).pack(batch)); got != n {
			t.Errorf("%d records of %d come back", got, n)
		}
	})
}

func TestBatchesAreBounded(t *testing.T) {
	var b []byte
	n := 0
	for ; !full(b, n, 1); n++ {
		b = appendRecord(b, []byte("x"))
	}
	if n != perBatch {
		t.Errorf("a batch takes %d small records, want %d", n, perBatch)
	}
	if full(nil, 0, 1<<20) || !full(b[:10], 1, maxBatch) {
		t.Error("a large record needs a batch of its own")
	}
	if err := new(packer).records(appendRecord(b, []byte("x")), func(int64, []byte) error { return nil }); !errors.Is(err, errDamaged) {
		t.Errorf("a batch with too many records: %v", err)
	}
	if (position{3, 2}).compare(position{3, 10}) >= 0 || (position{4, 0}).compare(position{3, 10}) <= 0 {
		t.Error("positions are not in order")
	}
	for _, text := range []string{"", "1", ".", "1.x", "-1.2", "1.2.3"} {
		if p, ok := parsePosition(text); ok {
			t.Errorf("%q is the position %v", text, p)
		}
	}
	if p, ok := parsePosition(position{7, 3}.String()); !ok || p != (position{7, 3}) {
		t.Errorf("7.3 is %v", p)
	}
}
