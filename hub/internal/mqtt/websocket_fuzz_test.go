package mqtt_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/iotdm/iotdm/hub"
	"github.com/iotdm/iotdm/hub/hubtest"
	"github.com/iotdm/iotdm/hub/internal/wiretest"
)

// A rawSocket is the client's end of a WebSocket, frame by frame and byte by
// byte, as RFC 6455 has it and no library would let it.
type rawSocket struct {
	*tls.Conn
	in *bufio.Reader
}

// upgradeFields are what a request for a WebSocket needs.
const upgradeFields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt"

// dialRaw asks for a WebSocket with header fields.
func dialRaw(t testing.TB, h *hubtest.Hub, fields string) (*rawSocket, *http.Response) {
	t.Helper()
	nc, err := tls.Dial("tcp", h.HTTPSAddr, h.ClientTLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(wiretest.Patience))
	if _, err := io.WriteString(nc, "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\n"+fields+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	s := &rawSocket{nc, bufio.NewReader(nc)}
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		t.Fatalf("%q: %v", fields, err)
	}
	return s, resp
}

const (
	continuation = 0x0
	binaryFrame  = 0x2
	pingFrame    = 0x9
	final        = 0x80
)

// appendFrame appends a frame of a client, masked.
func appendFrame(b []byte, first byte, payload []byte) []byte {
	b = append(b, first)
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

// cutIntoFrames cuts a stream into messages and frames, with pings amid them, as
// the bytes of cuts say.
func cutIntoFrames(stream, cuts []byte) (b []byte) {
	begun := false // a message, which goes on
	for len(stream) > 0 {
		n, ping, more := len(stream), false, false
		if len(cuts) > 0 {
			n, ping, more = min(n, int(cuts[0]&0x3f)), cuts[0]&0x40 != 0, cuts[0]&0x80 != 0
			cuts = cuts[1:]
		}
		if ping {
			b = appendFrame(b, final|pingFrame, []byte("ping"))
		}
		first := byte(binaryFrame)
		if begun {
			first = continuation
		}
		if begun = more && n < len(stream); !begun {
			first |= final
		}
		b = appendFrame(b, first, stream[:n])
		stream = stream[n:]
	}
	return b
}

// Read reads what the hub sends in binary frames, and passes over all others.
func (s *rawSocket) Read(p []byte) (int, error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(s.in, head[:]); err != nil {
			return 0, err
		}
		n := uint64(head[1])
		switch n {
		case 126:
			var length [2]byte
			if _, err := io.ReadFull(s.in, length[:]); err != nil {
				return 0, err
			}
			n = uint64(binary.BigEndian.Uint16(length[:]))
		case 127:
			return 0, io.ErrUnexpectedEOF // the hub sends none that is so long
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(s.in, payload); err != nil {
			return 0, err
		}
		if head[0]&0x0f == binaryFrame && n > 0 {
			return copy(p, payload), nil
		}
	}
}

// However a stream of packets is cut into frames, the hub takes what is in it as
// it was; and whatever bytes follow, they end at most their own connection.
func FuzzWebSocket(f *testing.F) {
	h := hubtest.New(f)
	cs := h.Device("d1")
	f.Add([]byte("body"), []byte{1, 2, 3, 0x40, 0x80, 0x80 | 5, 0xc0 | 3}, []byte{})
	f.Add(bytes.Repeat([]byte("x"), 70_000), []byte{}, []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{}, bytes.Repeat([]byte{0x81}, 300), []byte{0x81, 0x81, 0, 0, 0, 0, 'x'})
	f.Add([]byte("\x00"), []byte{0, 0, 0, 0}, []byte{0x88, 0x80, 0, 0, 0, 0})
	f.Add([]byte("\xff"), []byte{0xc1}, []byte{0x82, 0x05, 'n', 'o', 'm', 's', 'k'})
	f.Add([]byte(nil), []byte{0x3f}, []byte{0xf2, 0x80, 0, 0, 0, 0})
	f.Add([]byte(nil), []byte{0x3f}, []byte("GET / HTTP/1.1\r\n\r\n"))
	next := int64(0)
	f.Fuzz(func(t *testing.T, body, cuts, after []byte) {
		if len(body) > hub.MaxMessageSize {
			return
		}
		s, resp := dialRaw(t, h, upgradeFields)
		if resp.StatusCode != 101 {
			t.Fatalf("the answer is %s", resp.Status)
		}
		var stream bytes.Buffer
		connect := wiretest.ConnectPacket(t, cs)
		connect.CleanSession = true
		for _, p := range []packets.ControlPacket{connect, wiretest.PublishPacket(7, 1, "devices/d1/messages/events/", string(body))} {
			if err := p.Write(&stream); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Write(cutIntoFrames(stream.Bytes(), cuts)); err != nil {
			t.Fatal(err)
		}
		var answer [8]byte
		if _, err := io.ReadFull(s, answer[:]); err != nil {
			t.Fatal(err)
		}
		if want := [8]byte{packets.Connack << 4, 2, 0, 0, packets.Puback << 4, 2, 0, 7}; answer != want {
			t.Fatalf("the answer is %x, want %x", answer, want)
		}
		events := wiretest.Events(t, h.Node, hub.EventQuery{Offset: next, Device: "d1", Sources: []hub.EventSource{hub.SourceTelemetry}})
		if len(events) != 1 || !bytes.Equal(events[0].Body, body) {
			t.Fatalf("stored is %v", events)
		}
		next = events[0].Offset + 1

		_, _ = s.Write(after) // the hub may have closed
		_ = s.CloseWrite()
		_, _ = io.Copy(io.Discard, s.in)
	})
}

// The hub upgrades what asks for MQTT over a WebSocket, in the client's own
// spelling and without extensions, and answers all else as HTTP.
func FuzzUpgrade(f *testing.F) {
	h := hubtest.New(f)
	f.Add(upgradeFields)
	f.Add(strings.Replace(upgradeFields, "mqtt", "x, MQTT , AMQPWSB10", 1))
	f.Add(strings.Replace(upgradeFields, "mqtt", "mqtt\r\nSec-WebSocket-Extensions: permessage-deflate", 1))
	f.Add(strings.Replace(upgradeFields, "mqtt", "mqttv5", 1))
	f.Add(strings.Replace(upgradeFields, "13", "8", 1))
	f.Add(strings.Replace(upgradeFields, "dGhlIHNhbXBsZSBub25jZQ==", "dGhl", 1))
	f.Add(strings.Replace(upgradeFields, "Connection: Upgrade", "Connection: close", 1))
	f.Add(strings.Replace(upgradeFields, "Upgrade: websocket", "Upgrade: h2c, websocket", 1))
	f.Fuzz(func(t *testing.T, fields string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: localhost\r\n" + fields + "\r\n\r\n")))
		if err != nil || r.ContentLength != 0 || strings.Contains(fields, "\n\n") || strings.Contains(fields, "\n\r\n") || len(r.Header["Expect"]) > 0 {
			return // another request than this, or two
		}
		s, resp := dialRaw(t, h, fields)
		protocol := resp.Header.Get("Sec-WebSocket-Protocol")
		if resp.StatusCode != 101 {
			if protocol != "" {
				t.Errorf("%q is answered with %s, and speaks %q", fields, resp.Status, protocol)
			}
			return
		}
		offers := strings.FieldsFunc(strings.Join(r.Header["Sec-Websocket-Protocol"], ","), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
		offered := false
		for _, offer := range offers {
			offered = offered || offer == protocol
		}
		if !offered || !strings.EqualFold(protocol, "mqtt") || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("%q is answered with %v", fields, resp.Header)
		}
		if diff := cmp.Diff([]string{"13"}, r.Header["Sec-Websocket-Version"]); diff != "" {
			t.Errorf("version (-want +got):\n%s", diff)
		}
		s.Close()
	})
}
