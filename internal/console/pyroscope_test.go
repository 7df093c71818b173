package console

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestPyroscopeGuarded: querier.v1 is there, behind what guards the rest.
func TestPyroscopeGuarded(t *testing.T) {
	ask := func(header ...string) *http.Request {
		r := request(http.MethodPost, "/querier.v1.QuerierService/ProfileTypes", append(header, "Content-Type", "application/json")...)
		r.Body = io.NopCloser(strings.NewReader("{}"))
		return r
	}
	w := newWorld(t)
	if rec := w.do(ask()); rec.Code != http.StatusServiceUnavailable || !strings.Contains(rec.Body.String(), `"code":"unavailable"`) || !strings.Contains(rec.Body.String(), "profiles.enabled") {
		t.Errorf("without profiles: %d %s", rec.Code, rec.Body)
	}
	wantProblem(t, w.do(ask("Sec-Fetch-Site", "cross-site")), http.StatusForbidden, "another origin")
	wantProblem(t, w.do(ask("Host", "evil.example")), http.StatusMisdirectedRequest, "evil.example")
	if rec := w.get("/querier.v1.QuerierService/ProfileTypes"); rec.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", rec.Code)
	}
	locked := newWorld(t, func(o *Options) { o.TokenFile = write(t, "token", "0123456789abcdef0123456789abcdef") })
	wantProblem(t, locked.do(ask()), http.StatusUnauthorized, "credential")
	if rec := locked.do(ask("Authorization", "Bearer 0123456789abcdef0123456789abcdef")); rec.Code != http.StatusServiceUnavailable {
		t.Errorf("with the token: %d %s", rec.Code, rec.Body)
	}
}
