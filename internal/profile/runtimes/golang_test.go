package runtimes

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // for one that listens in this process
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// TestGo: a Go program that serves its profiles is found by its port, and they say
// what it is known to do.
func TestGo(t *testing.T) {
	pid, line := start(t, nil, built(t), "127.0.0.1:0", "leak on")
	addr := strings.TrimPrefix(line, "ready ")
	c := New("/proc")
	d, err := c.Look(pid)
	if err != nil || d.Runtime != "go" || !strings.HasPrefix(d.Version, "go1.") || !slices.Equal(d.Listens, []string{addr}) || len(d.Profiles) != 0 {
		t.Errorf("what /proc says: %+v, %v", d, err)
	}
	if d, err = c.Ask(timeout(t), pid); err != nil || len(d.Profiles) != 5 || d.Reason != "" {
		t.Fatalf("%+v, %v", d, err)
	}
	for _, p := range d.Profiles {
		if p.At != "http://"+addr+"/debug/pprof/"+p.Name || *p.Count < 1 || !p.Delta {
			t.Errorf("%+v", p)
		}
	}
	all, err := c.List(timeout(t))
	if err != nil || !slices.ContainsFunc(all, func(d signal.RuntimeProcess) bool { return d.PID == pid && slices.Equal(d.Listens, []string{addr}) }) {
		t.Errorf("not in the list: %+v, %v", all, err)
	}

	heap := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "heap", Collect: true})
	if self, _ := of(heap, "main.leak"); self < 100*64<<10 || heap.Unit != "bytes" || self > heap.Total || 2*self < heap.Total {
		t.Errorf("heap: %d of %d %s in main.leak", self, heap.Total, heap.Unit)
	}
	objects := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "allocs", Sample: "alloc_objects"})
	if self, _ := of(objects, "main.leak"); self < 100 || objects.Unit != "count" {
		t.Errorf("allocs: %d %s in main.leak", self, objects.Unit)
	}
	// Each of 30 turns of 20 ms is waited for by both others, but for the last ones.
	mutex := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "mutex"})
	if _, total := of(mutex, "main.hold"); total < int64(400*time.Millisecond) || mutex.Unit != "nanoseconds" {
		t.Errorf("mutex: %d %s below main.hold", total, mutex.Unit)
	}
	if _, total := of(fetch(t, signal.RuntimeRequest{PID: pid, Profile: "block"}), "main.hold"); total < int64(400*time.Millisecond) {
		t.Errorf("block: %d below main.hold", total)
	}
	if _, total := of(fetch(t, signal.RuntimeRequest{PID: pid, Profile: "goroutine"}), "main.await"); total != 7 {
		t.Errorf("goroutine: %d in main.await", total)
	}
	// Within two seconds it leaks forty blocks, not the hundred before.
	late := fetch(t, signal.RuntimeRequest{PID: pid, Profile: "heap", Sample: "alloc_space", For: 2 * time.Second})
	if self, _ := of(late, "main.leak"); self < 64<<10 || self >= 100*64<<10 {
		t.Errorf("heap of two seconds: %d in main.leak", self)
	}
}

// TestRequests: what makes no sense is refused before anybody is asked.
func TestRequests(t *testing.T) {
	own := uint32(os.Getpid())
	for _, tt := range []struct {
		r    signal.RuntimeRequest
		kind string
		want string
	}{
		{signal.RuntimeRequest{PID: own, Profile: "cpu"}, badRequest, `no profile "cpu": a Go program may have heap, allocs, goroutine, mutex, block, a JVM has classes`},
		{signal.RuntimeRequest{PID: own, Profile: "heap", For: time.Hour}, badRequest, "at most that within 5m0s"},
		{signal.RuntimeRequest{PID: own, Profile: "classes", For: time.Second}, badRequest, "are of a moment"},
		{signal.RuntimeRequest{PID: own, Profile: "mutex", Collect: true}, badRequest, "for heap and classes only"},
		{signal.RuntimeRequest{PID: own, Profile: "heap", Collect: true, For: time.Second}, badRequest, "ask for one of them"},
		{signal.RuntimeRequest{PID: own, Profile: "heap", Sample: "delay"}, badRequest, `no samples "delay"`},
		{signal.RuntimeRequest{PID: own, Profile: "classes"}, notFound, `no profile "classes": it runs go, which has heap`},
		{signal.RuntimeRequest{PID: 2, Profile: "heap"}, notFound, ""},
		{signal.RuntimeRequest{PID: 1 << 30, Profile: "heap"}, notFound, "there is no process"},
	} {
		_, err := New("/proc").Fetch(t.Context(), tt.r)
		var e *Error
		if !errors.As(err, &e) || e.ErrorType() != tt.kind || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt.r, err)
		}
	}
}

// TestOneAtATime: a process is asked by one at a time, and not many at once.
func TestOneAtATime(t *testing.T) {
	c := New("/proc")
	done, err := c.begin(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.begin(1); err == nil || !strings.Contains(err.Error(), "process 1 is being asked") {
		t.Errorf("twice: %v", err)
	}
	if _, err := c.begin(2); err != nil {
		t.Error(err)
	}
	if _, err := c.begin(3); err == nil || !strings.Contains(err.Error(), "2 processes are being asked") {
		t.Errorf("a third: %v", err)
	}
	done()
	if _, err := c.begin(3); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// serve answers connections to a port of this process, which is a Go program too.
func serve(t *testing.T, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestBadServers: a port that does not answer, or with anything else, costs a
// bounded time and is told about.
func TestBadServers(t *testing.T) {
	wait := func(c net.Conn) { io.Copy(io.Discard, c) }
	say := func(s string) func(net.Conn) {
		return func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, s)
		}
	}
	for name, tt := range map[string]struct {
		serve func(net.Conn)
		want  string
	}{
		"silence":     {wait, "does not answer in time"},
		"garbage":     {say("\x00\x01\x02 what?\r\n\r\n"), "does not speak HTTP"},
		"hang up":     {say(""), "ends the connection"},
		"another":     {say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "is not net/http/pprof's"},
		"refused":     {say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nlog in\x1b[2J!!"), "it answers 401 log in·[2J!!"},
		"redirection": {say("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"), "it answers 302"},
		"endless": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for b := make([]byte, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}, "sends more than a profile has"},
		"endless header": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "A: "+strings.Repeat("b", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, "sends more than a profile has"},
		"dribble": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for {
				if _, err := c.Write([]byte{' '}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}, "does not answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			serve(t, tt.serve)
			began := time.Now()
			d, err := New("/proc").Ask(timeout(t), uint32(os.Getpid()))
			if err != nil || len(d.Profiles) != 0 || !strings.Contains(d.Reason, tt.want) || strings.Contains(d.Reason, "\x1b") {
				t.Errorf("%+v, %v", d, err)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// bomb is 40 MiB of zeros, packed.
func bomb() string {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	for range 40 {
		z.Write(make([]byte, 1<<20))
	}
	z.Close()
	return b.String()
}

// TestBadProfiles: a page of profiles is no promise that what comes is one.
func TestBadProfiles(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"text":      {"heap profile: 1: 2 [3: 4]", "parse"},
		"nothing":   {"", "parse"},
		"packed":    {"\x1f\x8bnot", "unpack"},
		"bomb":      {bomb(), "more than a profile has"},
		"too large": {strings.Repeat("x", maxProfile+1), "more than a profile has"},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("/debug/pprof/", http.DefaultServeMux.ServeHTTP) // the real page
			mux.HandleFunc("/debug/pprof/heap", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, tt.body) })
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: mux}
			go s.Serve(l)
			t.Cleanup(func() { s.Close() })
			_, err = New("/proc").Fetch(timeout(t), signal.RuntimeRequest{PID: uint32(os.Getpid()), Profile: "heap"})
			var e *Error
			if !errors.As(err, &e) || e.ErrorType() != failed || !strings.Contains(err.Error(), tt.want) {
				t.Error(err)
			}
		})
	}
}

// TestCancel: who has gone is not waited for.
func TestCancel(t *testing.T) {
	serve(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := New("/proc").Ask(ctx, uint32(os.Getpid())); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestForeign: who answers is known by the socket at the other end.
func TestForeign(t *testing.T) {
	addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "x")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	other, _ := start(t, nil, "sh", "-c", "echo ready; exec sleep 600")
	for _, tt := range []struct {
		pid  uint32
		want bool
	}{{uint32(os.Getpid()), false}, {other, true}} {
		p, err := openProcess("/proc", tt.pid)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if got := p.foreign(c.LocalAddr().(*net.TCPAddr).AddrPort()); got != tt.want {
			t.Errorf("foreign to %d: %v", tt.pid, got)
		}
	}
}

// TestNamespace: a program in a network namespace of its own is asked there,
// and no thread of this process stays in it.
func TestNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	needs(t, "ip")
	program := built(t)
	apart := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	for _, addr := range []string{"127.0.0.1:6060", "0.0.0.0:6060", "[::]:6060", "[::1]:6060"} {
		pid, _ := start(t, apart, "sh", "-c", `ip link set lo up && exec "$0" "$@"`, program, addr)
		d, err := New("/proc").Ask(timeout(t), pid)
		if err != nil || len(d.Profiles) != 5 {
			t.Fatalf("%s: %+v, %v", addr, d, err)
		}
		if self, _ := of(fetch(t, signal.RuntimeRequest{PID: pid, Profile: "heap"}), "main.leak"); self < 100*64<<10 || self > 101*64<<10 {
			t.Errorf("%s: %d in main.leak", addr, self)
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		strange := 0
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if ns, err := os.Readlink(fmt.Sprintf("/proc/self/task/%s/ns/net", task.Name())); err == nil && ns != own {
				strange++
			}
		}
		if strange == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d threads are in another namespace", strange)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
