package recorded_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub/internal/amqp/recorded"
	"github.com/iotdm/iotdm/hub/internal/amqp/wire"
)

// Every frame of the recordings comes through the encoding as it is.
func TestRecordedFramesComeBackAsTheyWent(t *testing.T) {
	sessions, err := recorded.Sessions()
	if err != nil {
		t.Fatal(err)
	}
	frames, messages := 0, 0
	for _, s := range sessions {
		t.Run(s.ID, func(t *testing.T) {
			for _, c := range s.Connections {
				for i, f := range c.Frames {
					if f.Header != "" {
						continue
					}
					frames++
					want := wire.Frame{SASL: f.SASL, Channel: f.Channel, Body: f.Body}
					var b []byte
					if f.Message != nil {
						messages++
						want.Payload = wire.AppendMessage(nil, f.Message)
					}
					if f.SASL {
						b = wire.AppendSASL(nil, f.Body)
					} else {
						b = wire.AppendFrame(nil, f.Channel, f.Body, want.Payload)
					}
					got, err := wire.DecodeFrame(b)
					if err != nil {
						t.Fatalf("frame %d: DecodeFrame(%x): %v", i, b, err)
					}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("frame %d: DecodeFrame(%x) (-want +got):\n%s", i, b, diff)
					}
					if f.Message == nil {
						continue
					}
					message, err := wire.DecodeMessage(got.Payload)
					if err != nil {
						t.Fatalf("frame %d: DecodeMessage(%x): %v", i, got.Payload, err)
					}
					if f.Message.Data == nil && !f.Message.HasValue {
						f.Message.Data = [][]byte{{}} // which a message without a body gets
					}
					if diff := cmp.Diff(f.Message, message); diff != "" {
						t.Errorf("frame %d: DecodeMessage(%x) (-want +got):\n%s", i, got.Payload, diff)
					}
				}
			}
		})
	}
	if frames < 2400 || messages < 300 {
		t.Errorf("there are %d frames with %d messages only", frames, messages)
	}
}
