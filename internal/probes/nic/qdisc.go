package nic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// qdisc is what the queueing disciplines of one kind at one device count.
type qdisc struct {
	index                    int
	kind                     string
	bytes, packets           uint64
	drops                    uint64
	requeues, overlimits     uint64
	queueLength, backlogByte uint64
}

// Members of TCA_STATS2: enum in include/uapi/linux/gen_stats.h.
const (
	tcaStatsBasic = 1
	tcaStatsQueue = 3
	tcaStatsPkt64 = 8 // the same count of packets with 64 bits, since v5.6
)

// sizeofTcmsg is that of the header before the attributes.
const sizeofTcmsg = 20

// parseQdisc reads the payload of an RTM_NEWQDISC message.
func parseQdisc(b []byte) (*qdisc, error) {
	if len(b) < sizeofTcmsg {
		return nil, fmt.Errorf("parse queueing discipline: %d bytes", len(b))
	}
	q := &qdisc{index: int(int32(binary.NativeEndian.Uint32(b[4:])))}
	err := attributes(b[sizeofTcmsg:], func(ad *netlink.AttributeDecoder) error {
		switch ad.Type() {
		case unix.TCA_KIND:
			q.kind = ad.String()
		case unix.TCA_STATS2:
			return attributes(ad.Bytes(), q.parseStats)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("parse queueing discipline: %w", err)
	}
	if q.kind == "" || q.index <= 0 {
		return nil, errors.New("parse queueing discipline: no kind or no device")
	}
	return q, nil
}

func (q *qdisc) parseStats(ad *netlink.AttributeDecoder) error {
	v := ad.Bytes()
	switch ad.Type() {
	case tcaStatsBasic: // struct gnet_stats_basic
		if len(v) < 12 {
			return fmt.Errorf("%d bytes of TCA_STATS_BASIC", len(v))
		}
		q.bytes = binary.NativeEndian.Uint64(v)
		if q.packets == 0 {
			q.packets = uint64(binary.NativeEndian.Uint32(v[8:]))
		}
	case tcaStatsPkt64:
		if len(v) < 8 {
			return fmt.Errorf("%d bytes of TCA_STATS_PKT64", len(v))
		}
		q.packets = binary.NativeEndian.Uint64(v)
	case tcaStatsQueue: // struct gnet_stats_queue
		if len(v) < 20 {
			return fmt.Errorf("%d bytes of TCA_STATS_QUEUE", len(v))
		}
		for i, to := range []*uint64{&q.queueLength, &q.backlogByte, &q.drops, &q.requeues, &q.overlimits} {
			*to = uint64(binary.NativeEndian.Uint32(v[4*i:]))
		}
	}
	return nil
}

// add sums what several disciplines of a kind at a device count, such as those
// of the queues of a device with many.
func (q *qdisc) add(o *qdisc) {
	q.bytes += o.bytes
	q.packets += o.packets
	q.drops += o.drops
	q.requeues += o.requeues
	q.overlimits += o.overlimits
	q.queueLength += o.queueLength
	q.backlogByte += o.backlogByte
}
