package runtimes

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/google/pprof/profile"

	"huatuo/internal/signal"
)

const (
	// maxPorts bounds the ports of one process that are asked; all within findTime.
	maxPorts = 64
	findTime = 30 * time.Second
	// askTime is how long a port may take to say what it serves.
	askTime = 5 * time.Second
	// fetchTime is how long a profile may take beyond the time that it is of.
	fetchTime = 30 * time.Second
	// maxIndex bounds the page that lists a program's profiles: some kilobytes.
	maxIndex  = 256 << 10
	maxHeader = 64 << 10
	// maxProfile bounds a profile as it is sent, and maxPlain when it is unpacked.
	// One of a large server has half a megabyte, eight times that unpacked; parsed
	// it takes some times more.
	maxProfile = 8 << 20
	maxPlain   = 32 << 20
)

// server is a port on which a Go program serves its profiles.
type server struct {
	addr  netip.AddrPort // as the program listens on it
	reach netip.AddrPort // as it is reached
	has   map[string]int64
}

func (s server) offers() []signal.RuntimeProfile {
	out := []signal.RuntimeProfile{}
	for _, k := range kinds() {
		if n, ok := s.has[k.name]; ok && k.runtime == "go" {
			out = append(out, k.offer("http://"+s.addr.String()+"/debug/pprof/"+k.name, &n))
		}
	}
	return out
}

// findServer asks the ports of a Go program, one after the other, until one serves
// profiles. The error tells what each has said.
func (p *process) findServer(ctx context.Context) (server, error) {
	listeners, err := p.listeners()
	if err != nil {
		return server{}, errorOf(failed, "find what process %d listens on: %w", p.pid, err)
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	var said []string
	for i, l := range listeners {
		if i == maxPorts {
			said = append(said, fmt.Sprintf("%d more ports were not asked", len(listeners)-i))
			break
		}
		for _, reach := range reachable(l.addr) {
			s := server{addr: l.addr, reach: reach}
			if s.has, err = p.index(ctx, reach); err == nil {
				return s, nil
			}
			if !errors.Is(err, errDial) {
				break
			}
		}
		said = append(said, fmt.Sprintf("%v: %v", l.addr, err))
	}
	if len(said) == 0 {
		return server{}, errorOf(notFound, "it listens on no TCP port")
	}
	return server{}, errorOf(notFound, "none of its ports serves net/http/pprof at /debug/pprof/ (%s)", strings.Join(said, "; "))
}

// reachable lists the addresses by which a listener is reached within its namespace.
func reachable(a netip.AddrPort) []netip.AddrPort {
	four := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
	switch {
	case !a.Addr().IsUnspecified():
		return []netip.AddrPort{a}
	case a.Addr().Is4():
		return []netip.AddrPort{four}
	}
	return []netip.AddrPort{four, netip.AddrPortFrom(netip.IPv6Loopback(), a.Port())} // of both, or of IPv6 alone
}

// listed finds a line of the page of net/http/pprof, as Go has written it since 1.2.
var listed = regexp.MustCompile(`(\d+)\s*(?:</td>)?\s*<td>\s*<a href=["']?(\w+)\?debug=1`)

// index asks a port which profiles it serves, and how many records each has.
func (p *process) index(ctx context.Context, addr netip.AddrPort) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	text, err := p.get(ctx, addr, "/debug/pprof/", maxIndex)
	if err != nil {
		return nil, err
	}
	has := map[string]int64{}
	for _, m := range listed.FindAllSubmatch(text, -1) {
		if n, err := strconv.ParseInt(string(m[1]), 10, 64); err == nil {
			has[string(m[2])] = n
		}
	}
	if _, ok := has["goroutine"]; !ok || !bytes.Contains(text, []byte("/debug/pprof/")) {
		return nil, errors.New("what it answers is not net/http/pprof's")
	}
	return has, nil
}

var (
	errDial    = errors.New("cannot connect")
	errForeign = errors.New("another process answers there")
	errTooMuch = errors.New("it sends more than a profile has")
)

// get gets a path from a port of the process. One request and one answer need no
// client that keeps connections, and logs what it does not expect on them.
func (p *process) get(ctx context.Context, addr netip.AddrPort, path string, most int64) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+addr.String()+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "huatuo")
	c, err := p.dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errDial, err)
	}
	defer c.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(at); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	in := &io.LimitedReader{R: c, N: most + maxHeader}
	text, err := p.exchange(c, in, req, most)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return nil, ctx.Err()
	case in.N <= 0:
		return nil, errTooMuch
	}
	return text, err
}

// exchange sends a request and reads the answer.
func (p *process) exchange(c net.Conn, in io.Reader, req *http.Request, most int64) ([]byte, error) {
	if err := req.Write(c); err != nil {
		return nil, plain(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(in), req)
	if err != nil {
		return nil, plain(err)
	}
	defer r.Body.Close()
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok && p.foreign(a.AddrPort()) {
		return nil, errForeign
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	switch {
	case r.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answers %d %s", r.StatusCode, firstLine(text))
	case err != nil:
		return nil, plain(err)
	case int64(len(text)) > most:
		return nil, errTooMuch
	}
	return text, nil
}

// plain says in a few words what went wrong with a connection.
func plain(err error) error {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return errors.New("it does not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return errors.New("it ends the connection without an answer")
	}
	text := firstLine([]byte(err.Error()))
	if strings.Contains(text, "malformed") {
		return errors.New("it does not speak HTTP")
	}
	return errors.New(text)
}

// firstLine is what is shown of a text that a process has sent.
func firstLine(text []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(text[:min(len(text), 200)])), "\n")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, strings.ToValidUTF8(line, "·"))
}

// fetchGo gets a profile of a Go program.
func (p *process) fetchGo(ctx context.Context, k *kind, r signal.RuntimeRequest) (*profile.Profile, error) {
	s, err := p.findServer(ctx)
	if err != nil {
		return nil, fmt.Errorf("process %d has no profiles: %w", p.pid, err)
	}
	if _, ok := s.has[k.name]; !ok {
		return nil, errorOf(notFound, "process %d serves no profile %q", p.pid, k.name)
	}
	q := url.Values{}
	if r.For > 0 {
		q.Set("seconds", strconv.FormatInt(max(1, int64(r.For.Round(time.Second)/time.Second)), 10))
	}
	if r.Collect {
		q.Set("gc", "1")
	}
	ctx, cancel := context.WithTimeout(ctx, r.For+fetchTime)
	defer cancel()
	text, err := p.get(ctx, s.reach, "/debug/pprof/"+k.name+"?"+q.Encode(), maxProfile)
	if err != nil {
		return nil, errorOf(failed, "get %s from process %d at %v: %w", k.name, p.pid, s.addr, err)
	}
	out, err := parsePprof(text)
	if err != nil {
		return nil, errorOf(failed, "read %s from process %d at %v: %w", k.name, p.pid, s.addr, err)
	}
	for _, want := range k.samples {
		if _, err := out.SampleIndexByName(want); err != nil {
			return nil, errorOf(failed, "read %s from process %d at %v: it has no samples %q", k.name, p.pid, s.addr, want)
		}
	}
	return out, nil
}

// parsePprof reads a profile in pprof's form, packed or not.
func parsePprof(text []byte) (*profile.Profile, error) {
	if bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		text, err = io.ReadAll(io.LimitReader(z, maxPlain+1))
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
	}
	if len(text) > maxPlain {
		return nil, errTooMuch
	}
	p, err := profile.ParseUncompressed(text)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	if err := p.CheckValid(); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	return p, nil
}
