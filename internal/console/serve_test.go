package console

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve runs w until the returned function stops it; that returns what Serve did.
func serve(t *testing.T, w *world) (addr string, stop func() error) {
	t.Helper()
	ls, err := w.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Serve(ctx, ls...) }()
	return ls[0].Addr().String(), func() error { cancel(); return <-done }
}

func onAnyPort(o *Options) { o.Listen = "localhost:0" }

func TestListenLocalhost(t *testing.T) {
	w := newWorld(t, onAnyPort)
	ls, err := w.Listen()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ls[0].Addr().String())
	want := 1
	if six, err := net.Listen("tcp", "[::1]:0"); err == nil {
		six.Close()
		want = 2
	}
	if len(ls) != want {
		t.Errorf("%d listeners, want %d", len(ls), want)
	}
	for _, l := range ls {
		if _, p, _ := net.SplitHostPort(l.Addr().String()); p != port || !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
			t.Errorf("listens on %s, the first on port %s", l.Addr(), port)
		}
		defer l.Close()
	}
	if got := w.URL(); got != "http://localhost:"+port {
		t.Errorf("URL %s", got)
	}
	if got := newWorld(t, func(o *Options) { o.Listen, o.AllowAnonymous = ":123", true }).URL(); got != "http://localhost:123" {
		t.Errorf("URL %s", got)
	}
	// Taken on either address is taken.
	for _, address := range []string{"127.0.0.1:" + port, "[::1]:" + port}[:want] {
		for _, l := range ls {
			l.Close()
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, err = newWorld(t, func(o *Options) { o.Listen = "localhost:" + port }).Listen()
		l.Close()
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s is taken: %v", address, err)
			continue
		}
		for _, word := range []string{port, "--listen", fmt.Sprint(os.Getpid()), filepath.Base(os.Args[0])[:7]} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("the error does not tell %q: %v", word, err)
			}
		}
	}
}

func TestHolder(t *testing.T) {
	proc := t.TempDir()
	for _, d := range []string{"net", "42/fd", "43/fd"} {
		if err := os.MkdirAll(filepath.Join(proc, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	head := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	line := "   0: 0100007F:4CF8 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 %d 1 0 100 0 0 10 0\n"
	for name, text := range map[string]string{
		"net/tcp":  head + fmt.Sprintf(line, "01", 7) + fmt.Sprintf(line, "0A", 8),
		"42/comm":  "client\n",
		"43/comm":  "nginx\n",
		"net/tcp6": head,
	} {
		if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"42/fd/3": "socket:[7]", "43/fd/5": "socket:[8]", "43/fd/1": "/dev/null"} {
		if err := os.Symlink(target, filepath.Join(proc, link)); err != nil {
			t.Fatal(err)
		}
	}
	if got := holder(proc, "19704"); got != "nginx (process 43)" {
		t.Errorf("holder is %q", got)
	}
	if got := holder(proc, "80"); !strings.Contains(got, "ss -ltnp 'sport = :80'") {
		t.Errorf("unknown holder is %q", got)
	}
}

func TestServe(t *testing.T) {
	w := newWorld(t, onAnyPort)
	addr, stop := serve(t, w)
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != "ok\n" {
		t.Errorf("%q", b)
	}
	if err := stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("still listens")
	}
}

// TestServeRefuses gives Serve a listener that New has not seen.
func TestServeRefuses(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := newWorld(t).Serve(t.Context(), l); err == nil || !strings.Contains(err.Error(), "no credential") {
		t.Errorf("an open listener without a credential: %v", err)
	}
	if err := l.Close(); err == nil {
		t.Error("the listener was left open")
	}
}

// TestShutdown stops a server with open streams, an idle connection and a
// query that does not end, within the agent's 5 s and without leaving a goroutine.
func TestShutdown(t *testing.T) {
	before := runtime.NumGoroutine()
	client := &http.Client{Transport: &http.Transport{}}
	w := newWorld(t, onAnyPort, func(o *Options) { o.QueryTimeout = 300 * time.Millisecond })
	addr, stop := serve(t, w)
	var bodies []io.Closer
	for range 3 {
		resp, err := client.Get("http://" + addr + "/api/v1/events/stream")
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, resp.Body)
	}
	opened(t, w.hub, 3)
	idle, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() {
		resp, err := client.Get("http://" + addr + "/api/v1/query?query=slow")
		if err != nil {
			answered <- 0
			return
		}
		resp.Body.Close()
		answered <- resp.StatusCode
	}()
	for w.metrics.asked() == "" {
		time.Sleep(time.Millisecond)
	}
	start := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %s", d)
	}
	if code := <-answered; code != http.StatusServiceUnavailable {
		t.Errorf("the running query was cut off: %d", code)
	}
	for _, b := range append(bodies, idle) {
		b.Close()
	}
	client.CloseIdleConnections()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// TestHeaderTooLarge and slow headers are cut by net/http; the limits must be set.
func TestHeaderTooLarge(t *testing.T) {
	addr, stop := serve(t, newWorld(t, onAnyPort))
	defer stop()
	r, err := http.NewRequest(http.MethodGet, "http://"+addr+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", strings.Repeat("x", 2*maxHeader))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// certificate writes a self-signed certificate for localhost.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		b := pem.EncodeToMemory(block)
		if name == "cert.pem" {
			pool.AppendCertsFromPEM(b)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return pool
}

// getTLS asks for the node, as alice when there is a password.
func getTLS(t *testing.T, addr string, conf *tls.Config, password string) (*http.Response, error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	_, port, _ := net.SplitHostPort(addr)
	r, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:"+port+"/api/v1/node", nil)
	if err != nil {
		t.Fatal(err)
	}
	if password != "" {
		r.SetBasicAuth("alice", password)
	}
	return (&http.Client{Transport: tr}).Do(r)
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	pool := certificate(t, dir)
	server := "tls_server_config: {cert_file: cert.pem, key_file: key.pem%s}\n"
	users := "basic_auth_users: {alice: " + hashOf(t, "wonder") + "}\n"
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, config string
		listen       string
		show         bool // the client's certificate
		user         string
		want         int // 0: no connection
		proto        string
	}{
		{"tls", fmt.Sprintf(server, ""), "localhost:0", false, "", 200, "HTTP/2.0"},
		{"tls and user", fmt.Sprintf(server, "") + users, ":0", false, "wonder", 200, "HTTP/2.0"},
		{"tls and no user", fmt.Sprintf(server, "") + users, ":0", false, "", 401, "HTTP/2.0"},
		{"no http2", fmt.Sprintf(server, "") + "http_server_config: {http2: false}\n", "localhost:0", false, "", 200, "HTTP/1.1"},
		{"client certificate", fmt.Sprintf(server, ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: cert.pem"), ":0", true, "", 200, "HTTP/2.0"},
		{"no client certificate", fmt.Sprintf(server, ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: cert.pem"), ":0", false, "", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, "web.yml")
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, func(o *Options) { o.Listen, o.ConfigFile = c.listen, path })
			addr, stop := serve(t, w)
			defer stop()
			if !strings.HasPrefix(w.URL(), "https://") {
				t.Errorf("URL %s", w.URL())
			}
			conf := &tls.Config{RootCAs: pool}
			if c.show {
				conf.Certificates = []tls.Certificate{pair}
			}
			resp, err := getTLS(t, addr, conf, c.user)
			if c.want == 0 {
				if err == nil {
					t.Errorf("connected: %s", resp.Status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != c.want || resp.Proto != c.proto {
				t.Errorf("%s %s, want %d %s", resp.Proto, resp.Status, c.want, c.proto)
			}
		})
	}
}
