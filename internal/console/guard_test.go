package console

import (
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestHost(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	open := func(o *Options) { o.Listen, o.AllowAnonymous = ":19704", true }
	named := func(o *Options) { o.AllowedHosts = []string{"Huatuo.Example.COM."} }
	withToken := func(o *Options) { o.Listen, o.TokenFile = ":0", write(t, "token", token) }
	for _, c := range []struct {
		name string
		opt  func(*Options)
		host string
		path string
		want int
	}{
		{"localhost", named, "localhost:19704", "/", 200},
		{"case and root dot", named, "LocalHost.:19704", "/", 200},
		{"no port", named, "localhost", "/", 200},
		{"address", named, "127.0.0.1:19704", "/", 200},
		{"address 6", named, "[::1]:19704", "/", 200},
		{"own name", named, hostname + ":19704", "/", 200},
		{"allowed", named, "huatuo.example.com:19704", "/api/v1/node", 200},
		{"rebound", named, "evil.example:19704", "/api/v1/node", 421},
		{"rebound page", named, "evil.example:19704", "/", 421},
		{"rebound metrics", named, "evil.example:19704", "/metrics", 421},
		{"subdomain", named, "localhost.evil.example", "/", 421},
		{"parent", named, "example.com", "/", 421},
		{"empty", named, "", "/", 421},
		{"rebound, open to the network", open, "evil.example", "/api/v1/node", 421},
		{"scraped by name, open to the network", open, "node7.svc:19704", "/metrics", 200},
		{"address, open to the network", open, "192.0.2.7:19704", "/api/v1/node", 200},
		{"any name with a credential", withToken, "node7.svc", "/api/v1/node", 200},
	} {
		w := newWorld(t, c.opt)
		rec := w.get(c.path, "Host", c.host, "Authorization", "Bearer "+token)
		if rec.Code != c.want {
			t.Errorf("%s: %d, want %d", c.name, rec.Code, c.want)
		}
		if c.want == 421 {
			wantProblem(t, rec, 421, "web.allowed_hosts")
		}
	}
}

func TestOrigin(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, method string
		header       []string
		want         int
	}{
		{"the console itself", "POST", []string{"Origin", "http://localhost:19704", "Sec-Fetch-Site", "same-origin"}, 200},
		{"a program", "POST", nil, 200},
		{"another page", "POST", []string{"Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		{"another page, old browser", "POST", []string{"Origin", "http://evil.example"}, 403},
		{"another port", "POST", []string{"Origin", "http://localhost:8080", "Sec-Fetch-Site", "same-site"}, 403},
		{"a sandboxed page", "POST", []string{"Origin", "null"}, 403},
		{"another page reads: the browser keeps the answer from it", "GET", []string{"Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site"}, 200},
	} {
		rec := w.do(request(c.method, "/api/v1/query?query=1&time=1", c.header...))
		if rec.Code != c.want {
			t.Errorf("%s: %d, want %d", c.name, rec.Code, c.want)
		}
		if got := rec.Header().Get("Access-Control-Allow-Origin"); got != "" {
			t.Errorf("%s: answers may be read by %q", c.name, got)
		}
	}
	wantProblem(t, w.do(request("POST", "/api/v1/query", "Origin", "null")), 403, "origin")
}

func TestHeaders(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/", "/api/v1/node", "/api/v1/nothing", "/metrics", "/missing.js"} {
		h := w.get(path).Header()
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
	if got := w.get("/api/v1/node").Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("answers of the API may be kept: %q", got)
	}
	for _, m := range []string{http.MethodTrace, http.MethodConnect} {
		wantProblem(t, w.do(request(m, "/api/v1/node")), http.StatusMethodNotAllowed, m)
	}
}
