package tcpretrans

import (
	"testing"
	"time"
	"unsafe"

	"huatuo/internal/signal"
)

func at(ns uint64) time.Time { return time.Unix(0, int64(ns)) }

// sample is the second timeout of a connection.
func sample() *bpfRetransmitWire {
	w := &bpfRetransmitWire{
		Ts: 1_000_000_000, Suppressed: 3, Cgroup: 42, Kind: 1, Seq: 4_294_967_000, EndSeq: 1152, SrttUs: 80_000, MdevUs: 4000,
		Cwnd: 1, Ssthresh: 7, PacketsOut: 4, LostOut: 3, Mss: 1448, Total: 9, Timeouts: 2, Backoff: 2,
	}
	w.Flow = bpfHtFlow{Sport: 41000, Dport: 443, Family: 2, State: 1, Netns: 4026531840}
	copy(w.Flow.Saddr[:], []byte{192, 0, 2, 1})
	copy(w.Flow.Daddr[:], []byte{198, 51, 100, 7})
	return w
}

func bytesOf(w *bpfRetransmitWire) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(w)), unsafe.Sizeof(*w))
}

func TestDecode(t *testing.T) {
	d := &decoder{clock: at}
	r, err := d.decode(bytesOf(sample()))
	if err != nil {
		t.Fatal(err)
	}
	want := TCPRetransmit{
		RetransmitKind: "rto", Source: "192.0.2.1", SourcePort: 41000, Destination: "198.51.100.7", DestinationPort: 443,
		SocketState: "ESTABLISHED", Netns: 4026531840, TCPSeq: 4_294_967_000, Length: 1448, RTTSeconds: 0.01, JitterSeconds: 0.001,
		Cwnd: 1, Ssthresh: 7, MSS: 1448, PacketsOut: 4, LostOut: 3, Timeouts: 2, Backoff: 2, TotalRetransmits: 9,
	}
	if got := *r.Body.(*TCPRetransmit); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if want := "TCP sends a segment after a timeout again, from 192.0.2.1:41000 to 198.51.100.7:443, timeout 2 in a row"; r.Title != want {
		t.Errorf("title %q, want %q", r.Title, want)
	}
	if r.Severity != signal.Warning || r.Suppressed != 3 || r.Time.Unix() != 1 || r.CgroupID != 0 || r.Process.PID != 0 {
		t.Errorf("record %+v", r)
	}
	for _, tt := range []struct {
		title  string
		change func(*bpfRetransmitWire)
	}{
		{"TCP sends SYN again, from [2001:db8::1]:41000 to [2001:db8::2]:443", func(w *bpfRetransmitWire) {
			w.Kind, w.Flow.Family, w.Timeouts = 3, 10, 1
			w.Flow.Saddr = [16]byte{0x20, 1, 0xd, 0xb8, 15: 1}
			w.Flow.Daddr = [16]byte{0x20, 1, 0xd, 0xb8, 15: 2}
		}},
		{"TCP sends SYN-ACK again, from 192.0.2.1:41000 to 198.51.100.7:443", func(w *bpfRetransmitWire) {
			w.Kind, w.Flow.Family, w.Timeouts = 4, 10, 0
			w.Flow.Saddr = [16]byte{10: 0xff, 0xff, 192, 0, 2, 1}
			w.Flow.Daddr = [16]byte{10: 0xff, 0xff, 198, 51, 100, 7}
		}},
		{"TCP sends a lost segment again, from 192.0.2.1:41000 to 198.51.100.7:443, and cannot: EHOSTUNREACH", func(w *bpfRetransmitWire) {
			w.Kind, w.Timeouts, w.Error = 0, 0, -113
		}},
		{"TCP sends a segment as loss probe again, from 192.0.2.1:41000 to 198.51.100.7:443, and cannot: dropped by the queue of the device", func(w *bpfRetransmitWire) {
			w.Kind, w.Timeouts, w.Error = 2, 0, 1
		}},
		{"TCP sends a segment again, from 192.0.2.1:41000 to 198.51.100.7:443, and cannot: error 2147483648", func(w *bpfRetransmitWire) {
			w.Kind, w.Timeouts, w.Error = 5, 0, -1<<31
		}},
	} {
		w := sample()
		tt.change(w)
		r, err := d.decode(bytesOf(w))
		if err != nil {
			t.Fatal(err)
		}
		if r.Title != tt.title {
			t.Errorf("title %q, want %q", r.Title, tt.title)
		}
	}
	if _, err := d.decode(bytesOf(sample())[:60]); err == nil {
		t.Error("a short sample decodes")
	}
	w := sample()
	w.Kind = 6
	if _, err := d.decode(bytesOf(w)); err == nil {
		t.Error("a kind that there is not decodes")
	}
}

// TestHook chooses a form for each number of arguments that a kernel has, and
// for a kernel that does not tell one that needs no third argument.
func TestHook(t *testing.T) {
	for args, want := range map[int]string{0: "tcp_retransmit_skb_2_btf", 2: "tcp_retransmit_skb_2_btf", 3: "tcp_retransmit_skb_btf"} {
		if h, withError := hook(args); h.Programs[0] != want || withError != (args == 3) || h.Name != "tcp_retransmit_skb" {
			t.Errorf("%d arguments: %+v, %v", args, h, withError)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(bytesOf(sample()))
	f.Add([]byte{})
	d := &decoder{clock: at}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := d.decode(raw)
		if err == nil {
			if _, err := r.Document(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	raw, d := bytesOf(sample()), &decoder{clock: at}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
