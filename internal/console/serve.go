package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Times and sizes of the HTTP server.
const (
	headerTimeout = 5 * time.Second  // a client that dribbles its header holds a connection, and that is all it can hold
	readTimeout   = 30 * time.Second // for the whole request: a form of 1 MiB at 35 kB/s
	writeMargin   = 30 * time.Second // to write an answer after the longest query
	idleTimeout   = 2 * time.Minute  // longer than any scrape interval: scrapers keep their connection
	maxHeader     = 64 << 10         // cookies of other services on localhost come along
	drain         = 2 * time.Second  // of the 5 s that the agent has to end: the pipe has the rest
)

// splitListen checks host:port.
func splitListen(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		return "", "", fmt.Errorf("listen on %q: want host:port, such as %s or :19704", address, DefaultListen)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("listen on %q: %q is no port; 0 to 65535 are", address, port)
	} else {
		return host, strconv.FormatUint(n, 10), nil
	}
}

// isLoopback tells whether only this machine reaches that host. An empty host
// is every address there is.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Listen opens the sockets of the configured address. localhost is 127.0.0.1
// and, where the machine has it, ::1: browsers try either first.
func (s *Server) Listen() ([]net.Listener, error) {
	out, err := s.listen()
	if err == nil {
		_, s.port, _ = net.SplitHostPort(out[0].Addr().String())
	}
	return out, err
}

func (s *Server) listen() ([]net.Listener, error) {
	host, port, err := splitListen(s.opt.Listen)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(host, "localhost") {
		l, err := listen(net.JoinHostPort(host, port))
		if err != nil {
			return nil, err
		}
		return []net.Listener{l}, nil
	}
	four, err := listen(net.JoinHostPort("127.0.0.1", port))
	if err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return nil, err
	}
	var out []net.Listener
	if four != nil {
		out = append(out, four)
		_, port, _ = net.SplitHostPort(four.Addr().String()) // the same for both when the configured one is 0
	}
	six, err6 := listen(net.JoinHostPort("::1", port))
	switch {
	case err6 == nil:
		return append(out, six), nil
	case errors.Is(err6, syscall.EADDRINUSE) && four != nil:
		four.Close()
		return nil, err6 // a browser might talk to that other server
	case four != nil:
		return out, nil // no IPv6 here
	default:
		return nil, errors.Join(err, err6)
	}
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("listen on %s: port %s is taken by %s; stop it, or choose another port with --listen: %w", address, port, holder("/proc", port), syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: ports below 1024 need CAP_NET_BIND_SERVICE; choose another with --listen: %w", address, err)
	default:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
}

// URL is what a person types to see the console, once Listen has been called.
func (s *Server) URL() string {
	host, port, err := splitListen(s.opt.Listen)
	if err != nil {
		return "" // New has checked it
	}
	if a, err := netip.ParseAddr(host); host == "" || err == nil && a.IsUnspecified() {
		host = "localhost"
	}
	if s.port != "" {
		port = s.port
	}
	scheme := "http"
	if s.creds.encrypted() {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// Serve answers on the listeners until ctx is done. Then streams end, running
// requests get some seconds to finish, and it returns nil. It closes the
// listeners. A Server serves once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	for _, l := range listeners {
		defer l.Close() // again, where the server has done it
	}
	conf, err := s.creds.tlsConfig()
	if err != nil {
		return err
	}
	for _, l := range listeners {
		if err := s.checkListener(l, conf != nil); err != nil {
			return err
		}
	}
	srv := &http.Server{
		Handler: s, TLSConfig: conf,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		WriteTimeout: s.opt.QueryTimeout + writeMargin, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // broken handshakes and the like: noise that a port scan makes
	}
	fresh := freshConns{}
	srv.ConnState = fresh.note
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- serveOne(srv, l, conf) }()
	}
	left := len(listeners)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
		left--
	}
	close(s.stopping)
	fresh.close()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if srv.Shutdown(late) != nil {
		srv.Close() // cuts what is left, whose contexts end with it
	}
	for range left {
		if e := <-failed; err == nil {
			err = e
		}
	}
	return err
}

// freshConns are connections that have not sent a byte yet. Browsers open such
// ahead of need, and http.Server.Shutdown waits 5 s for each to become useful.
type freshConns struct {
	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
}

func (f *freshConns) note(c net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case state != http.StateNew:
		delete(f.conns, c)
	case f.closed:
		c.Close()
	case f.conns == nil:
		f.conns = map[net.Conn]struct{}{c: {}}
	default:
		f.conns[c] = struct{}{}
	}
}

func (f *freshConns) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for c := range f.conns {
		c.Close()
	}
}

func serveOne(srv *http.Server, l net.Listener, conf *tls.Config) error {
	var err error
	if conf != nil {
		err = srv.ServeTLS(l, "", "")
	} else {
		err = srv.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve on %s: %w", l.Addr(), err)
}

// checkListener keeps a listener that does not fit the options from opening
// what New would have refused.
func (s *Server) checkListener(l net.Listener, encrypted bool) error {
	a, ok := l.Addr().(*net.TCPAddr)
	outside := ok && !a.IP.IsLoopback()
	if outside && !s.creds.required() && !s.opt.AllowAnonymous {
		return fmt.Errorf("serve on %s: not a loopback address, and there is no credential", l.Addr())
	}
	if outside && s.creds.required() && !encrypted {
		s.log.Warn("credentials cross the network in clear text: add tls_server_config to web.config_file", "listen", l.Addr().String())
	}
	if outside && s.opt.AllowAnonymous {
		s.log.Warn("everybody who reaches this address can read all signals", "listen", l.Addr().String())
	}
	return nil
}
