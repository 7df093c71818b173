package e2e

import (
	"net"
	"testing"
	"time"
)

// refuse sends datagrams to a closed port until the returned function is
// called: each is dropped by the kernel for want of a socket.
func refuse(t testing.TB) (stop func()) {
	t.Helper()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
			}
			if c, err := net.Dial("udp", "127.0.0.1:9"); err == nil {
				c.Write([]byte("x"))
				c.Close()
			}
		}
	}()
	return func() { close(done); <-ended }
}
