package disk_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/disk"
)

const format = 7

// fields is a record with one field of each kind.
type fields struct {
	Number   uint64
	Signed   int64
	Text     string
	Optional string
	Present  bool
	List     []string
	Rest     string
}

func (f fields) encode() []byte {
	b := binary.AppendUvarint([]byte{format}, f.Number)
	b = binary.AppendVarint(b, f.Signed)
	b = disk.AppendText(b, f.Text)
	b = disk.AppendOptional(b, f.Optional, f.Present)
	b = binary.AppendUvarint(b, uint64(len(f.List)))
	for _, text := range f.List {
		b = disk.AppendText(b, []byte(text))
	}
	return append(b, f.Rest...)
}

func decode(data []byte) (f fields, err error) {
	r := disk.Read("thing", data, format)
	f.Number, f.Signed, f.Text = r.Number(), r.Signed(), string(r.Text())
	optional, present := r.Optional()
	f.Optional, f.Present = string(optional), present
	for range r.Count() {
		f.List = append(f.List, string(r.Text()))
	}
	f.Rest = string(r.Rest())
	return f, r.Err()
}

// What is written is read as it was, and what is not a record is refused,
// without a panic and without more than there is.
func FuzzReader(f *testing.F) {
	f.Add([]byte{format}, uint64(0), int64(0), "", "", false, "", "")
	f.Add([]byte{format, 1, 2, 3, 'a', 'b', 'c', 2, 'd', 2, 1, 'e', 0, 'f'}, uint64(1)<<63, int64(-1)<<63, "text", "", true, "one\ntwo", "body")
	f.Add([]byte{format, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint64(300), int64(-300), "", "optional", true, "\n", "\x00")
	f.Add([]byte{format, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1}, uint64(127), int64(64), strings.Repeat("x", 200), "", false, "", "")
	f.Fuzz(func(t *testing.T, data []byte, number uint64, signed int64, text, optional string, present bool, list, rest string) {
		want := fields{Number: number, Signed: signed, Text: text, Present: present, Rest: rest}
		if present {
			want.Optional = optional
		}
		if list != "" {
			want.List = strings.Split(list, "\n")
		}
		encoded := want.encode()
		got, err := decode(encoded)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v; fields (-want +got):\n%s", err, diff)
		}
		for n := range len(encoded) - len(rest) {
			if got, err := decode(encoded[:n]); err == nil {
				t.Errorf("%d bytes of %d are read as %+v", n, len(encoded), got)
			}
		}
		got, err = decode(data)
		if err != nil && got.Rest != "" {
			t.Errorf("%v, and there is a rest: %q", err, got.Rest)
		}
		size := len(got.Text) + len(got.Optional) + len(got.Rest)
		for _, text := range got.List {
			size += len(text)
		}
		if size > len(data) {
			t.Errorf("%d bytes were read of %d", size, len(data))
		}
		if err == nil {
			if again, err := decode(got.encode()); err != nil || !cmp.Equal(got, again) {
				t.Errorf("read again it is %+v, %v, want %+v", again, err, got)
			}
		}
	})
}

func TestTheFirstFaultOfARecordCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":              {nil, "stored thing: unknown format"},
		"another format":       {[]byte{format + 1, 1, 1}, "stored thing: unknown format"},
		"a format alone":       {[]byte{format}, "stored thing: cut short"},
		"half a number":        {[]byte{format, 0x80}, "stored thing: cut short"},
		"a text that is short": {[]byte{format, 5, 'a'}, "stored thing: cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			r := disk.Read("thing", tt.data, format)
			if r.Text(); r.Err() == nil || r.Err().Error() != tt.want {
				t.Fatalf("the text is read with %v, want %s", r.Err(), tt.want)
			}
			// From here on there is nothing.
			optional, present := r.Optional()
			if n := r.Number(); n != 0 || r.Signed() != 0 || r.Text() != nil || optional != nil || present || r.Count() != 0 || r.More() || r.Rest() != nil {
				t.Error("there is something behind what is missing")
			}
			if r.Err().Error() != tt.want {
				t.Errorf("then it is %v, want %s", r.Err(), tt.want)
			}
		})
	}
}

func TestARestIsASliceOfTheRecord(t *testing.T) {
	data := append(disk.AppendText([]byte{format}, "ab"), "rest"...)
	r := disk.Read("thing", data, format)
	text := r.Text()
	if !r.More() || string(r.Rest()) != "rest" {
		t.Errorf("the rest is %q", r.Rest())
	}
	_ = append(text, "XYZ"...) // the text ends where it ends
	if !bytes.HasSuffix(data, []byte("rest")) {
		t.Errorf("appending to a text has changed the record: %q", data)
	}
}
