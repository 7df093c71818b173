package netdev

import "huatuo/internal/signal"

const nColumns = 16

// columns are those of /proc/net/dev, in the kernel's order
// (net/core/net-procfs.c:dev_seq_printf_stats).
var columns = [nColumns]struct{ schema *signal.Schema }{
	{counter("receive_bytes", "bytes", "Bytes received.", "Against the link's speed: above 70 % expect queues.")},
	{counter("receive_packets", "1", "Packets received.", "bytes/packets is the mean size: many small packets cost CPU, not bandwidth.")},
	{counter("receive_errors", "1", "Packets received with an error.", "Should not move: a cable, a transceiver, a driver.")},
	{counter("receive_drops", "1", "Received packets that the device or the kernel's entry to the stack dropped.",
		"Ring full or no handler for the protocol; drops deeper in the stack are huatuo_network_drops_total.")},
	{counter("receive_fifo_errors", "1", "Packets lost because the device's receive buffer overflowed.", "The host does not fetch packets fast enough: ring size, interrupts.")},
	{counter("receive_frame_errors", "1", "Packets received with a wrong length, checksum or alignment.", "A cable or a transceiver.")},
	{counter("receive_compressed", "1", "Compressed packets received.", "Only on serial links (PPP, SLIP).")},
	{counter("receive_multicast", "1", "Multicast packets received.", "A flood of them costs every host of the segment.")},
	{counter("transmit_bytes", "bytes", "Bytes sent.", "Against the link's speed: above 70 % expect queues.")},
	{counter("transmit_packets", "1", "Packets sent.", "With segmentation offload one packet here is many on the wire.")},
	{counter("transmit_errors", "1", "Packets that could not be sent.", "Should not move: link, driver, or a tunnel without a route.")},
	{counter("transmit_drops", "1", "Packets dropped before they were sent.", "The driver or a tunnel refused them; drops of the queueing discipline are not here.")},
	{counter("transmit_fifo_errors", "1", "Packets lost because the device's send buffer ran empty or over.", "A device or its bus is too slow.")},
	{counter("transmit_collisions", "1", "Collisions.", "On a modern link: a duplex mismatch.")},
	{counter("transmit_carrier_errors", "1", "Packets not sent because the link was down or broke.", "A cable, or a flapping link.")},
	{counter("transmit_compressed", "1", "Compressed packets sent.", "Only on serial links (PPP, SLIP).")},
}

func counter(what, unit, help, read string) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_netdev_" + what + "_total", Kind: signal.Metric, Type: signal.Counter, Unit: unit,
		Area: signal.AreaNetwork, Scope: signal.Host, Help: help, Read: read,
		Fields: []signal.Field{{Name: "device", Help: "Network device."}},
	}
}
