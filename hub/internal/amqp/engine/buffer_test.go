package engine

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

func TestFrameBufferCutsFrames(t *testing.T) {
	var stream []byte
	var want [][]byte
	for n := 1; n < 40_000; n = n*3 + 1 {
		for _, size := range []int{n, 1, 7} {
			f := wire.AppendFrame(nil, 1, &wire.Transfer{}, bytes.Repeat([]byte{byte(n)}, size))
			want = append(want, f)
			stream = append(stream, f...)
		}
	}
	for name, r := range map[string]io.Reader{
		"at once":      bytes.NewReader(stream),
		"in halves":    iotest.HalfReader(bytes.NewReader(stream)),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			var b frameBuffer
			for i, want := range want {
				for {
					got, err := b.frame(64 << 10)
					if err != nil {
						t.Fatal(err)
					}
					if got != nil {
						if !bytes.Equal(got, want) {
							t.Fatalf("frame %d is %d bytes, want %d", i, len(got), len(want))
						}
						break
					}
					if err := b.fill(r, 64<<10); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := b.fill(r, 64<<10); err != io.EOF {
				t.Errorf("fill: %v", err)
			}
			if b.large != nil {
				t.Errorf("%d bytes are kept", len(b.large))
			}
		})
	}
}

// What a peer announces costs nothing before it comes.
func TestFrameBufferGrowsWithWhatComes(t *testing.T) {
	var b frameBuffer
	r := iotest.OneByteReader(bytes.NewReader(append([]byte{0, 0, 0xff, 0xff}, make([]byte, 60_000)...)))
	for n := 1; n < 60_000; n++ {
		if err := b.fill(r, 64<<10); err != nil {
			t.Fatal(err)
		}
		if f, err := b.frame(64 << 10); f != nil || err != nil {
			t.Fatalf("%d bytes are a frame: %v", n, err)
		}
		if len(b.large) > max(bufferSize, 8*n) || n <= 64 && b.large != nil {
			t.Fatalf("%d bytes are held for %d", len(b.large), n)
		}
	}
}

func TestFrameBufferRefusesSizes(t *testing.T) {
	for _, head := range [][]byte{{0, 0, 0, 0}, {0, 0, 0, 7}, {0, 1, 0, 1}, {255, 255, 255, 255}} {
		var b frameBuffer
		if err := b.fill(bytes.NewReader(head), 64<<10); err != nil {
			t.Fatal(err)
		}
		if f, err := b.frame(64 << 10); err == nil {
			t.Errorf("size %x gives %v", head, f)
		}
	}
}
