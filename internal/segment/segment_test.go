package segment_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/internal/segment"
)

var formats = map[string]segment.Format{
	"plain":  {Header: 16, MaxData: 1 << 16},
	"salted": {Header: 28, MaxData: 1 << 10, Salt: 0xdeadbeef},
}

// number is in the header of each record of these tests.
func number(header []byte) uint64 { return binary.LittleEndian.Uint64(header[8:]) }

// record returns the record n of data.
func record(f segment.Format, n uint64, data []byte) []byte {
	h := make([]byte, f.Header)
	binary.LittleEndian.PutUint64(h[8:], n)
	r := f.Append(nil, h, data)
	f.Seal(r)
	return r
}

// found is what a Scanner tells of a record.
type found struct {
	Number          uint64
	Offset, Damaged int64
	Data            string
}

// scan returns what is in the file, in whose records numbers only rise, and where the last one ends.
func scan(t testing.TB, f segment.Format, file []byte) (list []found, end int64) {
	t.Helper()
	next := uint64(0)
	s := f.Scan(bytes.NewReader(file), 0, int64(len(file)), func(h []byte) bool { return number(h) >= next && number(h) < 1<<20 })
	for s.Next() {
		next = number(s.Header) + 1
		list = append(list, found{number(s.Header), s.Offset, s.Damaged, string(s.Data)})
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return list, s.End()
}

func TestRecordsAreFoundAgain(t *testing.T) {
	for name, f := range formats {
		t.Run(name, func(t *testing.T) {
			var file []byte
			var want []found
			for i, size := range []int{0, 1, 100, f.MaxData, 7, f.MaxData, 0} {
				data := bytes.Repeat([]byte{byte(i)}, size)
				want = append(want, found{uint64(i), int64(len(file)), 0, string(data)})
				r := record(f, uint64(i), data)
				if got := f.Size(r); got != len(r) {
					t.Errorf("the size of a record of %d bytes is %d", len(r), got)
				}
				file = append(file, r...)
			}
			got, end := scan(t, f, file)
			if diff := cmp.Diff(want, got); diff != "" || end != int64(len(file)) {
				t.Errorf("a file of %d bytes, of which %d are records (-want +got):\n%s", len(file), end, diff)
			}
		})
	}
}

// Whatever single bytes, or runs of bytes, are damaged, and wherever the file is cut: each record that has none of the
// damage is found, and none that was not written.
func TestDamageCostsOnlyWhatIsDamaged(t *testing.T) {
	for name, f := range formats {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(300) {
				rng := rand.New(rand.NewPCG(seed, 0))
				var file []byte
				var written []found
				for i := range 5 + rng.IntN(20) {
					data := make([]byte, rng.IntN(f.MaxData/4))
					for j := range data {
						data[j] = byte(rng.IntN(3)) // much looks like a header
					}
					written = append(written, found{Number: uint64(i), Offset: int64(len(file)), Data: string(data)})
					file = append(file, record(f, uint64(i), data)...)
				}
				whole := bytes.Clone(file)
				for range rng.IntN(4) {
					at := rng.IntN(len(file))
					for range 1 + rng.IntN(40)*rng.IntN(2) {
						if at < len(file) {
							file[at] = byte(rng.IntN(256)) // it may be what it was
						}
						at++
					}
				}
				if rng.IntN(3) == 0 {
					file = file[:rng.IntN(len(file)+1)]
				}
				if rng.IntN(3) == 0 {
					file = append(file, make([]byte, rng.IntN(5000))...) // as a power cut leaves a file
				}
				var want []found
				end := int64(0)
				for i, r := range written {
					next := int64(len(whole))
					if i+1 < len(written) {
						next = written[i+1].Offset
					}
					if next <= int64(len(file)) && bytes.Equal(whole[r.Offset:next], file[r.Offset:next]) {
						r.Damaged = r.Offset - end
						want, end = append(want, r), next
					}
				}
				got, gotEnd := scan(t, f, file)
				if diff := cmp.Diff(want, got); diff != "" || gotEnd != end {
					t.Fatalf("seed %d: records end at %d, want %d (-want +got):\n%s", seed, gotEnd, end, diff)
				}
			}
		})
	}
}

// Data may look like records, for when the record around them is damaged.
func TestDataThatLookLikeRecordsAreNotTakenForThem(t *testing.T) {
	forged := record(formats["plain"], 7, []byte("forged"))
	for name, f := range map[string]segment.Format{"by the size": formats["plain"], "by the salt": {Header: 16, MaxData: 1 << 10, Salt: 1}} {
		for where := range map[string]int{"in the data": 16 + len(forged), "in the size": 4} {
			t.Run(name+", damaged "+where, func(t *testing.T) {
				if f.Salt == 0 && where == "in the size" {
					t.Skip("without a salt nothing tells them apart")
				}
				file := append(record(f, 1, append(bytes.Clone(forged), "rest"...)), record(f, 2, []byte("true"))...)
				file[map[string]int{"in the data": 16 + len(forged), "in the size": 4}[where]]++
				got, _ := scan(t, f, file)
				if len(got) != 1 || got[0].Number != 2 {
					t.Errorf("found %+v, want record 2 alone", got)
				}
			})
		}
	}
}

func TestAScannerGoesOnWhereTheFileHasGrown(t *testing.T) {
	f := formats["plain"]
	var file []byte
	s := f.Scan(readerAt(func(p []byte, off int64) (int, error) { return bytes.NewReader(file).ReadAt(p, off) }), 0, 0,
		func([]byte) bool { return true })
	for i := range uint64(2000) {
		if s.Next() {
			t.Fatalf("record %d of %d", number(s.Header), i)
		}
		file = append(file, record(f, i, bytes.Repeat([]byte("x"), int(i)))...)
		s.Extend(int64(len(file)))
		if !s.Next() || number(s.Header) != i || len(s.Data) != int(i) || s.Damaged != 0 {
			t.Fatalf("record %d is not found: %v", i, s.Err())
		}
	}
}

type readerAt func([]byte, int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }

func TestAFileThatCannotBeReadIsNotTakenForDamage(t *testing.T) {
	f := formats["plain"]
	broken := errors.New("broken")
	s := f.Scan(readerAt(func([]byte, int64) (int, error) { return 0, broken }), 0, 1000, func([]byte) bool { return true })
	if s.Next() || !errors.Is(s.Err(), broken) {
		t.Errorf("Err = %v, want %v", s.Err(), broken)
	}
	s = f.Scan(readerAt(func([]byte, int64) (int, error) { return 0, io.EOF }), 0, 1000, func([]byte) bool { return true })
	if s.Next() || s.Err() != nil {
		t.Errorf("a file that is shorter: %v", s.Err())
	}
}

func TestLostCountsWhatMayHaveBeenThere(t *testing.T) {
	f := formats["plain"]
	three := bytes.Join([][]byte{record(f, 0, []byte("a")), record(f, 1, []byte("bb")), record(f, 2, []byte("ccc"))}, nil)
	for _, tt := range []struct {
		name string
		b    []byte
		want int64
	}{
		{"nothing", nil, 0},
		{"a byte", []byte{1}, 1},
		{"three records", three, 3},
		{"the third cut", three[:len(three)-1], 2 + 2},
		{"the third's header cut", three[:len(three)-10], 2 + 1},
		{"zeros behind them", append(bytes.Clone(three), make([]byte, 100)...), 3 + 7},
		{"zeros alone", make([]byte, 160), 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next := uint64(0)
			got := f.Lost(tt.b, func(h []byte) bool {
				ok := number(h) == next && f.Size(h) > f.Header
				next++
				return ok
			})
			if got != tt.want {
				t.Errorf("Lost = %d, want %d", got, tt.want)
			}
		})
	}
}

// FuzzScan states the laws: whatever the file, a scan ends, what it finds are records of the file in their order, and
// damage and records together are the whole file.
func FuzzScan(f *testing.F) {
	format := segment.Format{Header: 16, MaxData: 300}
	var good []byte
	for i := range uint64(5) {
		good = append(good, record(format, i, fmt.Append(nil, "record ", i))...)
	}
	f.Add(good)
	f.Add(good[1:])
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good[:30]), good...))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, file []byte) {
		list, end := scan(t, format, file)
		at := int64(0)
		for _, r := range list {
			if r.Offset-r.Damaged != at {
				t.Fatalf("record at %d with %d bytes of damage in front, behind %d", r.Offset, r.Damaged, at)
			}
			n := int64(format.Header + len(r.Data))
			if !bytes.Equal(file[r.Offset:r.Offset+n], record(format, r.Number, []byte(r.Data))) {
				t.Fatalf("what is found at %d is not there", r.Offset)
			}
			at = r.Offset + n
		}
		if end != at || end > int64(len(file)) {
			t.Fatalf("records end at %d, or %d of %d", at, end, len(file))
		}
		lost := format.Lost(file[end:], func(h []byte) bool { return number(h) < 1<<20 })
		if rest := int64(len(file)) - end; lost < 0 || lost > rest || lost == 0 != (rest == 0) {
			t.Fatalf("%d records may have been in %d bytes", lost, rest)
		}
	})
}
