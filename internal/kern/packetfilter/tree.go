package packetfilter

import "slices"

// node is a condition.
type node interface{ isNode() }

type (
	and struct{ a, b node }
	or  struct{ a, b node }
	not struct{ a node }
	// compare tests bytes of the packet against a number.
	compare struct {
		load
		mask uint32 // 0: all bits
		op   string // "==", ">", ">=", or "&": any of the bits
		k    uint32
	}
	// relation compares two results of arithmetic.
	relation struct {
		op   string // "==", ">", ">="
		l, r arith
	}
	// portTest is an IP packet of one of protos whose port, by a direction, is in
	// one of the ranges.
	portTest struct {
		protos []uint32
		dir    string
		ranges [][2]uint32
	}
	// constant is true or false.
	constant bool
)

func (and) isNode()      {}
func (or) isNode()       {}
func (not) isNode()      {}
func (compare) isNode()  {}
func (relation) isNode() {}
func (portTest) isNode() {}
func (constant) isNode() {}

// load takes 1, 2 or 4 bytes of the frame.
type load struct {
	size  uint32
	off   uint32
	pastX bool // off counts from the end of the IPv4 header, less the link header
}

// arith is a number that is known when a packet comes.
type arith interface{ isArith() }

type (
	number    uint32
	length    struct{} // of the packet
	operation struct {
		op   string
		l, r arith
	}
	// field is bytes of a header at a place that index tells.
	field struct {
		load
		index arith
	}
)

func (number) isArith()    {}
func (length) isArith()    {}
func (operation) isArith() {}
func (field) isArith()     {}

// all is the conjunction, true of nothing.
func all(ns ...node) node {
	var out node
	for _, n := range ns {
		switch {
		case n == nil:
		case out == nil:
			out = n
		default:
			out = and{out, n}
		}
	}
	if out == nil {
		return constant(true)
	}
	return out
}

// either is the disjunction of one or more.
func either(ns ...node) node {
	out := ns[0]
	for _, n := range ns[1:] {
		out = or{out, n}
	}
	return out
}

// Where things are in a frame.
const (
	linkBytes = 14
	atType    = 12
	inIPv4    = linkBytes
	inIPv6    = linkBytes
	ipv6Bytes = 40
)

func equals(size, off, k uint32) node {
	return compare{load: load{size: size, off: off}, op: "==", k: k}
}

func etherType(v uint32) node { return equals(2, atType, v) }

const (
	typeIPv4 = 0x0800
	typeIPv6 = 0x86dd
	typeARP  = 0x0806
	typeRARP = 0x8035
)

func ipv4() node { return etherType(typeIPv4) }
func ipv6() node { return etherType(typeIPv6) }

// ipv4Proto is a packet of IPv4 that carries protocol v.
func ipv4Proto(v uint32) node { return and{ipv4(), equals(1, inIPv4+9, v)} }

// ipv6Proto looks behind a fragment header, as tcpdump does, and behind no other.
func ipv6Proto(v uint32) node {
	const fragment = 44
	return and{ipv6(), or{equals(1, inIPv6+6, v), and{equals(1, inIPv6+6, fragment), equals(1, inIPv6+ipv6Bytes, v)}}}
}

// firstFragment is an IPv4 packet that is whole, or the fragment with the header of what it carries.
func firstFragment() node {
	return not{compare{load: load{size: 2, off: inIPv4 + 6}, op: "&", k: 0x1fff}}
}

// lower makes loads and comparisons of the test.
func (p portTest) lower() node {
	carries := func(off uint32) node {
		ns := make([]node, len(p.protos))
		for i, v := range p.protos {
			ns[i] = equals(1, off, v)
		}
		return either(ns...)
	}
	one := func(l load) node {
		ns := make([]node, len(p.ranges))
		for i, r := range p.ranges {
			ns[i] = compare{load: l, op: "==", k: r[0]}
			if r[0] != r[1] {
				ns[i] = and{compare{load: l, op: ">=", k: r[0]}, not{compare{load: l, op: ">", k: r[1]}}}
			}
		}
		return either(ns...)
	}
	v6 := both(p.dir, one(load{size: 2, off: inIPv6 + ipv6Bytes}), one(load{size: 2, off: inIPv6 + ipv6Bytes + 2}))
	v4 := both(p.dir, one(load{size: 2, off: inIPv4, pastX: true}), one(load{size: 2, off: inIPv4 + 2, pastX: true}))
	return or{
		all(ipv6(), carries(inIPv6+6), v6),
		all(ipv4(), carries(inIPv4+9), firstFragment(), v4),
	}
}

// disjoin is a or b; lists of ports become one test, which is shorter.
func disjoin(a, b node) node {
	x, ok := a.(portTest)
	y, also := b.(portTest)
	// Source and destination must both be in one range: two do not mix.
	if !ok || !also || x.dir != y.dir || x.dir == "and" || !slices.Equal(x.protos, y.protos) {
		return or{a, b}
	}
	x.ranges = append(slices.Clip(x.ranges), y.ranges...)
	return x
}

// both combines the tests of the source and of the destination by a direction.
func both(dir string, src, dst node) node {
	switch dir {
	case "src":
		return src
	case "dst":
		return dst
	case "and":
		return and{src, dst}
	default:
		return or{src, dst}
	}
}
