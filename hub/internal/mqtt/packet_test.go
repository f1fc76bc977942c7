package mqtt

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
)

func pack(t testing.TB, list ...packets.ControlPacket) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range list {
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func publishOf(size int) *packets.PublishPacket {
	return &packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish}, TopicName: "t", Payload: bytes.Repeat([]byte{'x'}, size)}
}

// readAll cuts what r gives into packets.
func readAll(r io.Reader, limit int) (sizes []int, held int, err error) {
	var b packetBuffer
	defer b.release()
	for {
		_, body, ok, err := b.take(limit)
		if err != nil {
			return sizes, held, err
		}
		if ok {
			sizes = append(sizes, len(body))
			continue
		}
		if err := b.fill(r); err != nil {
			return sizes, held, err
		}
		held = max(held, len(b.large))
	}
}

func TestPacketBuffer(t *testing.T) {
	var list []packets.ControlPacket
	var want []int
	for _, size := range []int{0, 1, 50, 59, 60, 61, 62, 63, 64, 65, 4000, 4092, 4093, 4094, 5000, 40000, 262144, 3, 4096} {
		list = append(list, publishOf(size), packets.NewControlPacket(packets.Pingreq))
		want = append(want, size+3, 0)
	}
	stream := pack(t, list...)
	for name, r := range map[string]io.Reader{
		"all at once": bytes.NewReader(stream), "half of what is asked for": iotest.HalfReader(bytes.NewReader(stream)), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
	} {
		got, _, err := readAll(r, maxPacket)
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: sizes of packets (-want +got):\n%s", name, diff)
		}
	}
}

// TestPacketBufferGrowsAsBytesArrive announces much and sends little.
func TestPacketBufferGrowsAsBytesArrive(t *testing.T) {
	head := []byte{0x30, 0xff, 0xff, 0x0f} // 262143 bytes
	for _, sent := range []int{0, 60, 4000, 5000} {
		stream := append(bytes.Clone(head), make([]byte, sent)...)
		_, held, err := readAll(bytes.NewReader(stream), maxPacket)
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if most := max(8*len(stream), pooledBuffer); held > most {
			t.Errorf("%d bytes sent: %d held, want at most %d", sent, held, most)
		}
	}
	if _, _, err := readAll(bytes.NewReader(head), 1000); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a packet beyond the limit: %v", err)
	}
}

func TestAppendedPacketsAreWhatTheCodecReads(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  []byte
		want packets.ControlPacket
	}{
		{"PUBLISH at QoS 0", appendPublish(nil, 0, 0, "a/b", []byte("payload")), &packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish}, TopicName: "a/b", Payload: []byte("payload")}},
		{"PUBLISH at QoS 1", appendPublish(nil, 1, 513, "a/b", bytes.Repeat([]byte("x"), 300)), &packets.PublishPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Publish, Qos: 1}, MessageID: 513, TopicName: "a/b", Payload: bytes.Repeat([]byte("x"), 300)}},
		{"CONNACK", appendConnack(nil, true, 0), &packets.ConnackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Connack}, SessionPresent: true}},
		{"PUBACK", appendAck(nil, packets.Puback, 258), &packets.PubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Puback}, MessageID: 258}},
		{"SUBACK", appendAck(nil, packets.Suback, 258, 0, 1), &packets.SubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Suback}, MessageID: 258, ReturnCodes: []byte{0, 1}}},
		{"UNSUBACK", appendAck(nil, packets.Unsuback, 1), &packets.UnsubackPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Unsuback}, MessageID: 1}},
	} {
		if diff := cmp.Diff(pack(t, tt.want), tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func FuzzPacket(f *testing.F) {
	f.Add(pack(f, publishOf(3)))
	f.Add(pack(f, packets.NewControlPacket(packets.Pingreq), packets.NewControlPacket(packets.Disconnect)))
	subscribe := &packets.SubscribePacket{FixedHeader: packets.FixedHeader{MessageType: packets.Subscribe, Qos: 1}, MessageID: 1, Topics: []string{"a", "b"}, Qoss: []byte{0, 1}}
	f.Add(pack(f, subscribe))
	connect := &packets.ConnectPacket{FixedHeader: packets.FixedHeader{MessageType: packets.Connect}, ProtocolName: "MQTT", ProtocolVersion: 4, ClientIdentifier: "d1",
		UsernameFlag: true, Username: "localhost/d1/?api-version=2021-04-12", PasswordFlag: true, Password: []byte("x"), WillFlag: true, WillTopic: "w", WillMessage: []byte("m")}
	f.Add(pack(f, connect))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var b packetBuffer
		defer b.release()
		r := bytes.NewReader(stream)
		for {
			header, body, ok, err := b.take(maxConnectPacket)
			if err != nil {
				return
			}
			if !ok {
				if b.fill(r) != nil {
					return
				}
				continue
			}
			p, err := decodePacket(header, body)
			if err != nil {
				continue
			}
			// What was accepted is what the codec would have written, but for
			// bits of CONNECT that it does not keep.
			if _, ok := p.(*packets.ConnectPacket); ok {
				continue
			}
			var again bytes.Buffer
			if err := p.Write(&again); err != nil {
				t.Fatal(err)
			}
			if !bytes.HasSuffix(again.Bytes(), body) {
				t.Errorf("%x is read as %v, which is %x", body, p, again.Bytes())
			}
		}
	})
}

func FuzzUserName(f *testing.F) {
	f.Add("d1", "localhost/d1/?api-version=2021-04-12&model-id=dtmi:com:example:Thermostat;1")
	f.Add("d1/m1", "localhost/d1/m1/api-version=2020-09-30")
	f.Add("?x", "h/?x/?api-version=2021-04-12")
	f.Add("d1", "h/d1/api-version=2016-11-14&DeviceClientType=a/b")
	f.Fuzz(func(t *testing.T, clientID, name string) {
		id, u, err := parseUserName(clientID, name)
		if err != nil {
			return
		}
		if id.String() != clientID || id.Validate() != nil {
			t.Errorf("client id %q is %q", clientID, id)
		}
		again, _, err := parseUserName(id.String(), u.host+"/"+id.String()+"/?api-version=2021-04-12")
		if err != nil || again != id {
			t.Errorf("%q as %q, printed again: %q, %v", name, id, again, err)
		}
	})
}
