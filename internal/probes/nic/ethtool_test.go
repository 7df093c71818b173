package nic

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// TestErrorCounter: names as the drivers write them.
func TestErrorCounter(t *testing.T) {
	for name, want := range map[string]string{
		"rx_queue_0_drops":           "rx_queue_drops", // virtio_net, veth
		"tx_queue_13_tx_timeouts":    "tx_queue_tx_timeouts",
		"rx_queue_3_xdp_drops":       "rx_queue_xdp_drops",
		"rx_queue_0_packets":         "",
		"rx_crc_errors_phy":          "rx_crc_errors_phy", // mlx5
		"rx_out_of_buffer":           "",
		"rx3_wqe_err":                "rx_wqe_err",
		"tx12_dropped":               "tx_dropped",
		"rx_discards_phy":            "rx_discards_phy",
		"[4]: rx_discards":           "rx_discards", // bnxt_en
		"rx_no_dma_resources":        "rx_no_dma_resources",
		"rx_missed_errors":           "rx_missed_errors", // ixgbe
		"tx_timeout_count":           "tx_timeout_count",
		"rx-2.rx_alloc_fail":         "rx_rx_alloc_fail",
		"queue_1_rx_bad_csum":        "",
		"queue_7_rx_dma_mapping_err": "queue_rx_dma_mapping_err", // ena
		"rx_prio3_pause":             "",
		"rx_prio3_discards":          "rx_prio3_discards",
		"port.rx_priority_3_xoff":    "",
		"tx_bytes":                   "",
	} {
		if got := errorCounter(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestPauseCounter(t *testing.T) {
	for name, want := range map[string]string{
		"rx_prio3_pause":            "receive 3", // mlx5
		"tx_prio0_pause":            "transmit 0",
		"rx_prio3_pause_duration":   "", // not frames
		"rx_prio3_pause_transition": "",
		"rx_pause_prio_5":           "receive 5",  // mlx4
		"port.tx_priority_7_xoff":   "transmit 7", // i40e
		"tx_priority_2_xoff.nic":    "transmit 2", // ice
		"rx_priority_2_xon.nic":     "",
		"rx_pfc_ena_frames_pri6":    "receive 6", // bnxt_en
		"rx_pause_ctrl_phy":         "receive all",
		"rx_flow_control_xoff":      "receive all", // ixgbe
		"tx_pause_frames":           "transmit all",
		"rx_pause":                  "receive all",
		"rx_prio9_pause":            "",
		"rx_prio3_packets":          "",
	} {
		got := ""
		if dir, prio, ok := pauseCounter(name); ok {
			got = dir + " " + prio
		}
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	var p port
	p.count([]string{"rx_queue_0_drops", "rx_queue_0_packets", "rx_queue_1_drops", "rx_prio3_pause", "rx_pause", "rx_pause_frames", "tx_prio3_pause", "crc_errors", "no value"},
		[]uint64{3, 100, 4, 7, 11, 11, 0, 9})
	want := "[{[crc_errors ] 9} {[rx_queue_drops ] 7}] [{[receive 3] 7} {[receive all] 11} {[transmit 3] 0}]"
	if got := fmt.Sprint(p.errors, p.pauses); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	names, values := make([]string, 500), make([]uint64, 500)
	for i := range names {
		names[i] = fmt.Sprintf("err_%03d", i)
	}
	p.count(names, values)
	if len(p.errors) != maxErrors || p.errors[99].labels[0] != "err_099" {
		t.Errorf("%d counters are reported, want %d at most", len(p.errors), maxErrors)
	}
}

func TestCompareErrors(t *testing.T) {
	ports := func(values ...float64) *port {
		p := &port{driver: "ice"}
		for i, v := range values {
			p.errors = append(p.errors, named{[2]string{fmt.Sprintf("err%d", i)}, v})
		}
		return p
	}
	for _, tt := range []struct {
		was, now *port
		reason   string
	}{
		{nil, ports(1000), ""}, // since the machine was booted
		{ports(1000), nil, ""},
		{ports(1000), ports(1099), ""},
		{ports(1000), ports(1100), "err0 +100"},
		{ports(1000), ports(0), ""}, // the driver was loaded again
		{ports(0), ports(0, 500), ""},
		{ports(0, 0, 0, 0, 0), ports(100, 5, 400, 300, 200), "err2 +400, err3 +300, err4 +200"},
	} {
		rs := compareErrors("eth0", "", tt.was, tt.now, 100)
		if tt.reason == "" && len(rs) == 0 {
			continue
		}
		if len(rs) != 1 || rs[0].body.Reason != tt.reason || rs[0].body.What != "driver_errors" || rs[0].port.driver != "ice" {
			t.Errorf("%+v: %+v, want %s", tt.now, rs, tt.reason)
		}
	}
}

// TestAskNobody asks about devices without a driver, or that there are not.
func TestAskNobody(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, name := range []string{"none", "", "a name that is longer than one can be"} {
		if p, err := (ethtool{fd}).ask(name); err == nil {
			t.Errorf("%q: %+v", name, p)
		}
	}
	if s := (ethtool{fd}).speed("lo"); s != 0 {
		t.Errorf("the loopback device has a speed of %g", s)
	}
}
