package stress

import (
	"net"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// loader builds testdata/load.c and returns its path.
func loader(t testing.TB) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc: apt-get install gcc libc6-dev")
	}
	out := filepath.Join(t.TempDir(), "load")
	if text, err := exec.Command("gcc", "-O2", "-static", "-o", out, "testdata/load.c").CombinedOutput(); err != nil {
		t.Fatalf("build testdata/load.c: %v\n%s", err, text)
	}
	return out
}

// unlimited lets every dropped packet be an event.
var unlimited = []string{"--set", "probes.netdrop.rate=0"}

// drops makes the kernel drop about perSecond packets a second, by datagrams to
// a closed port, until the returned function is called, which tells how many
// were sent. With unlimited, each becomes a packet_drop event.
func drops(t testing.TB, perSecond int) (stop func() uint64) {
	t.Helper()
	var sent atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		const beats = 100 // a second
		tick := time.NewTicker(time.Second / beats)
		defer tick.Stop()
		owed := 0.0
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			for owed += float64(perSecond) / beats; owed >= 1; owed-- {
				if drop() {
					sent.Add(1)
				}
			}
		}
	}()
	stopped := false
	stop = func() uint64 {
		if !stopped {
			stopped = true
			close(done)
			<-ended
		}
		return sent.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}

// drop sends one datagram that nobody takes. A new socket each time: the
// answer, port unreachable, would make the next send of the same one fail.
func drop() bool {
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		return false
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err == nil
}
