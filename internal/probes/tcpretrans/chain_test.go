package tcpretrans

import (
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// TestIdentify: by what drops know the segment, and how long ago it was sent.
func TestIdentify(t *testing.T) {
	d := &decoder{clock: at}
	r, err := d.decode(bytesOf(sample()))
	if err != nil {
		t.Fatal(err)
	}
	want := signal.Flow{Protocol: "tcp", A: "192.0.2.1:41000", B: "198.51.100.7:443", NetNamespace: 4026531840}
	if r.Flow == nil || *r.Flow != want || !slices.Equal(r.Keys, []string{"seq:4294967000"}) || r.Lasted != 400*time.Millisecond || r.Verdict != "" {
		t.Errorf("flow %+v, keys %q, lasted %v, verdict %q", r.Flow, r.Keys, r.Lasted, r.Verdict)
	}
	w := sample()
	w.Error = 1
	if r, err = d.decode(bytesOf(w)); err != nil || !strings.Contains(r.Verdict, "did not leave this host") {
		t.Errorf("verdict %q of a segment that could not be sent, %v", r.Verdict, err)
	}
}

func TestWaited(t *testing.T) {
	for _, tt := range []struct {
		b    TCPRetransmit
		want time.Duration
	}{
		{TCPRetransmit{RetransmitKind: "rto", RTTSeconds: 0.01, JitterSeconds: 0.001, Timeouts: 1}, 200 * time.Millisecond},
		{TCPRetransmit{RetransmitKind: "rto", RTTSeconds: 0.3, JitterSeconds: 0.05, Timeouts: 1}, 500 * time.Millisecond},
		{TCPRetransmit{RetransmitKind: "rto", Timeouts: 6}, 6400 * time.Millisecond},
		{TCPRetransmit{RetransmitKind: "rto", Timeouts: 4_000_000_000}, maxRTO},
		{TCPRetransmit{RetransmitKind: "syn", Timeouts: 3}, 4 * time.Second},
		{TCPRetransmit{RetransmitKind: "synack"}, time.Second},
		{TCPRetransmit{RetransmitKind: "fast", RTTSeconds: 0.05}, 100 * time.Millisecond},
	} {
		if got := tt.b.waited(); got != tt.want {
			t.Errorf("%+v: %v, want %v", tt.b, got, tt.want)
		}
	}
}
