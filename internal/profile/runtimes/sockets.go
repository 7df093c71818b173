package runtimes

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// States of a socket in /proc/net/tcp.
const (
	established = "01"
	listening   = "0A"
)

// socket is a line of /proc/net/tcp.
type socket struct {
	addr, peer netip.AddrPort
	state      string
	inode      uint64 // 0: nobody has it open
}

// listeners lists the TCP sockets that a process listens on, the lower ports first.
func (p *process) listeners() ([]socket, error) {
	own, err := p.inodes()
	if err != nil {
		return nil, err
	}
	var out []socket
	err = p.sockets(func(s socket) bool {
		if s.state == listening && own[s.inode] {
			out = append(out, s)
		}
		return s.state == listening // they come first
	})
	slices.SortFunc(out, func(a, b socket) int { return int(a.addr.Port()) - int(b.addr.Port()) })
	return slices.CompactFunc(out, func(a, b socket) bool { return a.addr == b.addr }), err
}

// inodes lists the sockets that a process has open.
func (p *process) inodes() (map[uint64]bool, error) {
	dir, err := os.Open(p.path("fd"))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	out := map[uint64]bool{}
	for _, n := range names {
		to, err := os.Readlink(p.path("fd/" + n))
		if err != nil {
			continue // closed meanwhile
		}
		if s, ok := strings.CutPrefix(to, "socket:["); ok {
			if i, err := strconv.ParseUint(strings.TrimSuffix(s, "]"), 10, 64); err == nil {
				out[i] = true
			}
		}
	}
	return out, nil
}

// sockets calls f for the TCP sockets of the process' network namespace: for those
// of IPv4 until it returns false, and then for those of IPv6.
func (p *process) sockets(f func(socket) bool) error {
	for _, file := range []string{"net/tcp", "net/tcp6"} {
		in, err := os.Open(p.path(file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return err
		}
		lines := bufio.NewScanner(in)
		lines.Scan() // the heading
		more := true
		for more && lines.Scan() {
			if s, ok := parseSocket(lines.Bytes()); ok {
				more = f(s)
			}
		}
		in.Close()
		if err := lines.Err(); err != nil {
			return err
		}
	}
	return nil
}

func parseSocket(line []byte) (s socket, ok bool) {
	f := bytes.Fields(line)
	if len(f) < 10 {
		return s, false
	}
	inode, err1 := strconv.ParseUint(string(f[9]), 10, 64)
	addr, err2 := parseAddr(string(f[1]))
	peer, err3 := parseAddr(string(f[2]))
	return socket{addr, peer, string(f[3]), inode}, errors.Join(err1, err2, err3) == nil
}

// parseAddr parses an address as the kernel prints it: words of 32 bits in the
// machine's order, and a port.
func parseAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err1 := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err := errors.Join(err1, err2); err != nil {
		return netip.AddrPort{}, err
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	a, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("an address of %d bytes", len(raw))
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), nil
}

// foreign tells whether the other end of a connection is known to be another
// process': several may listen on one port, and rules of a firewall may lead
// elsewhere. An end that nobody has open is not known.
func (p *process) foreign(local netip.AddrPort) bool {
	own, err := p.inodes()
	if err != nil {
		return false
	}
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	other := false
	p.sockets(func(s socket) bool {
		if s.peer != local || s.state != established || s.inode == 0 {
			return true
		}
		other = other || !own[s.inode]
		return false
	})
	return other
}
