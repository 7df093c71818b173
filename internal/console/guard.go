package console

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

// maxBody bounds request bodies. Only forms with PromQL come in one; the
// longest query of a Grafana dashboard is some kilobytes.
const maxBody = 1 << 20

// contentPolicy lets a page load what this server sends and nothing else. The
// console has no inline script; libraries set styles through the CSSOM.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; " +
	"connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// open tells whether a path answers without a credential: what scrapers and
// kubelets read. It says how the node is, not what runs on it in detail.
func open(path string) bool {
	return path == "/metrics" || path == "/healthz" || path == "/readyz"
}

// guard is everything between the socket and the handlers, outermost first:
// count and recover, security headers, Host, credential, origin, body size.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		defer s.finish(rec, r)
		setHeaders(rec.Header(), s.creds.headers())
		if status, detail := s.admit(rec, r); status != 0 {
			problem(rec, status, detail)
			return
		}
		r.Body = http.MaxBytesReader(rec, r.Body, maxBody)
		next.ServeHTTP(rec, r)
	})
}

func setHeaders(h http.Header, extra map[string]string) {
	h.Set("Content-Security-Policy", contentPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store") // handlers of what may be kept say so
	for k, v := range extra {
		h.Set(k, v)
	}
}

// admit returns the status and the reason of a refusal, and 0 for none.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) (int, string) {
	if r.Method == http.MethodTrace || r.Method == http.MethodConnect {
		return http.StatusMethodNotAllowed, r.Method + " is not served"
	}
	if s.creds.limited() {
		return http.StatusTooManyRequests, "the rate limit of the web configuration file is reached"
	}
	if !s.hostAllowed(r) {
		return http.StatusMisdirectedRequest, fmt.Sprintf("host %q is not a name of this server; use localhost or an IP address, or add the name to web.allowed_hosts", hostOf(r))
	}
	if !open(r.URL.Path) && !s.creds.allow(r) {
		for _, c := range s.creds.challenges() {
			w.Header().Add("WWW-Authenticate", c)
		}
		return http.StatusUnauthorized, "this address needs a credential: a user of the web configuration file or the bearer token"
	}
	if err := s.origin.Check(r); err != nil {
		return http.StatusForbidden, "a page of another origin sent this request"
	}
	return 0, ""
}

// hostAllowed is the guard against DNS rebinding: a page whose name was made
// to point here still sends its own name as Host. Where a credential is asked
// for there is nothing to guard, because the browser has none for that name;
// and /metrics of a server on the network is open to every name it may have.
func (s *Server) hostAllowed(r *http.Request) bool {
	if s.creds.required() || (open(r.URL.Path) && !s.loopback) {
		return true
	}
	host := hostOf(r)
	// An address cannot be rebound: the browser went where the user said.
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return slices.Contains(s.hosts, host)
}

// hostOf returns the host the client asked for: no port, lower case, no
// brackets, no root dot.
func hostOf(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// finish counts the answer, and turns a panic of a handler into a 500.
func (s *Server) finish(rec *recorder, r *http.Request) {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		s.panics.Add(1)
		s.log.Error("handle request", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if rec.status == 0 {
			problem(rec, http.StatusInternalServerError, "the handler failed: this is a bug of huatuo; its log has the stack")
			p = nil
		}
	}
	s.count(rec.status)
	if p != nil {
		panic(http.ErrAbortHandler) // too late for a status: cut the connection, so that nobody takes the half for the whole
	}
}

func (s *Server) count(status int) {
	if status == 0 {
		status = http.StatusOK
	}
	class := status / 100
	if class < len(s.answers) {
		s.answers[class].Add(1)
	}
}

// classes are the values of the label code of the request counter, by status/100.
func classes() []string {
	out := make([]string, 6)
	for i := range out {
		out[i] = strconv.Itoa(i) + "xx"
	}
	return out
}

// recorder notes the status. Unwrap lets http.ResponseController through.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= 200 { // 1xx are followed by the real one
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Flush is for gzip and SSE writers that look for http.Flusher.
func (r *recorder) Flush() {
	if err := http.NewResponseController(r.ResponseWriter).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return // the next write tells
	}
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
