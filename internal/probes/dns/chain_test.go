package dns

import (
	"testing"
	"time"

	"huatuo/internal/signal"
)

// TestIdentify: a query has a conversation where packets of it may have been lost.
func TestIdentify(t *testing.T) {
	for _, tt := range []struct {
		b    DNSFailure
		want bool
	}{
		{DNSFailure{Reason: "timeout", Server: "192.0.2.53", Client: "192.0.2.1", Port: 4000, Elapsed: 5}, true},
		{DNSFailure{Reason: "slow", Retries: 1, Server: "192.0.2.53", Client: "192.0.2.1", Port: 4000, Elapsed: 5}, true},
		{DNSFailure{Reason: "slow", Server: "192.0.2.53", Client: "192.0.2.1", Port: 4000}, false},
		{DNSFailure{Reason: "servfail", Server: "192.0.2.53", Client: "192.0.2.1", Port: 4000}, false},
		{DNSFailure{Reason: "timeout"}, false},
	} {
		r := &signal.Record{}
		tt.b.identify(r)
		if (r.Flow != nil) != tt.want {
			t.Errorf("%+v: flow %+v", tt.b, r.Flow)
		}
		if want := (signal.Flow{Protocol: "udp", A: "192.0.2.1:4000", B: "192.0.2.53:53"}); r.Flow != nil && (*r.Flow != want || r.Lasted != 5*time.Second) {
			t.Errorf("flow %+v, lasted %v", r.Flow, r.Lasted)
		}
	}
}
