package console

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

const token = "0123456789abcdef0123456789abcdef"

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func hashOf(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func usersFile(t testing.TB) string {
	return write(t, "web.yml", fmt.Sprintf("basic_auth_users:\n  alice: %s\n  bob: %s\n", hashOf(t, "wonder"), hashOf(t, "builder")))
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// TestAuthMatrix crosses what is configured with what is shown.
func TestAuthMatrix(t *testing.T) {
	tokenFile, users := write(t, "token", "  "+token+"\n"), usersFile(t)
	nothing := func(*Options) {}
	withToken := func(o *Options) { o.TokenFile = tokenFile }
	withUsers := func(o *Options) { o.ConfigFile = users }
	both := func(o *Options) { o.TokenFile, o.ConfigFile = tokenFile, users }
	headerOnly := func(o *Options) {
		o.ConfigFile = write(t, "web.yml", "http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n")
	}
	shown := []struct{ name, header string }{
		{"nothing", ""}, {"alice", basic("alice", "wonder")}, {"alice again", basic("alice", "wonder")}, {"alice with bob's", basic("alice", "builder")},
		{"a stranger with alice's", basic("eve", "wonder")}, {"an empty password", basic("alice", "")}, {"the hash", basic("alice", "$2a$04$")},
		{"token", "Bearer " + token}, {"token as password", basic("", token)}, {"half a token", "Bearer " + token[:16]},
		{"an empty token", "Bearer "}, {"nonsense", "Basic %%%"}, {"another scheme", "Digest " + token},
	}
	for _, c := range []struct {
		name string
		opt  func(*Options)
		ok   string // indexes into shown that get in; * for all
	}{
		{"nothing configured", nothing, "*"},
		{"headers only", headerOnly, "*"},
		{"users", withUsers, " 1 2 "},
		{"token", withToken, " 7 8 "},
		{"both", both, " 1 2 7 8 "},
	} {
		w := newWorld(t, c.opt)
		for i, s := range shown {
			want := http.StatusUnauthorized
			if c.ok == "*" || strings.Contains(c.ok, fmt.Sprintf(" %d ", i)) {
				want = http.StatusOK
			}
			for _, path := range []string{"/api/v1/node", "/", "/openapi.json", "/api/v1/query?query=1"} {
				rec := w.get(path, "Authorization", s.header)
				if rec.Code != want {
					t.Errorf("%s, %s shown: %s answers %d, want %d", c.name, s.name, path, rec.Code, want)
				}
				if want == http.StatusUnauthorized {
					wantProblem(t, rec, want, "credential")
					if auth := rec.Header().Values("WWW-Authenticate"); len(auth) == 0 || !strings.HasPrefix(auth[0], "Basic ") {
						t.Errorf("WWW-Authenticate: %q", auth)
					}
				}
			}
			for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
				if rec := w.get(path, "Authorization", s.header); rec.Code != http.StatusOK {
					t.Errorf("%s, %s shown: %s answers %d", c.name, s.name, path, rec.Code)
				}
			}
		}
	}
	if rec := newWorld(t, withUsers).get("/api/v1/events/stream"); rec.Code != http.StatusUnauthorized {
		t.Errorf("the stream answers %d without a credential", rec.Code)
	}
	if rec := newWorld(t, withUsers).get("/api/v1/nothing"); rec.Code != http.StatusUnauthorized {
		t.Errorf("what there is can be found out without a credential: %d", rec.Code)
	}
	if got := newWorld(t, headerOnly).get("/api/v1/node").Header().Get("X-Frame-Options"); got != "sameorigin" {
		t.Errorf("header of the web configuration file: %q", got)
	}
}

// TestNetworkNeedsCredential is the rule that an agent opened to the network
// without thinking tells nobody anything.
func TestNetworkNeedsCredential(t *testing.T) {
	tokenFile := write(t, "token", token)
	for _, c := range []struct {
		listen string
		open   bool
	}{
		{"localhost:19704", false}, {"LOCALHOST:0", false}, {"127.0.0.1:1", false}, {"127.3.2.1:1", false}, {"[::1]:1", false}, {"[::ffff:127.0.0.1]:1", false},
		{":19704", true}, {"0.0.0.0:19704", true}, {"[::]:19704", true}, {"192.0.2.1:1", true}, {"node1:1", true}, {"localhost.example.com:1", true},
	} {
		err := refusal(c.listen, func(*Options) {})
		if (err != nil) != c.open {
			t.Errorf("%s without a credential: %v", c.listen, err)
		}
		if err != nil {
			for _, word := range []string{"--web.config-file", "web.config_file", "web.token_file", "web.allow_anonymous", "localhost"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not tell of %s: %v", word, err)
				}
			}
		}
		for name, change := range map[string]func(*Options){
			"token":     func(o *Options) { o.TokenFile = tokenFile },
			"users":     func(o *Options) { o.ConfigFile = usersFile(t) },
			"anonymous": func(o *Options) { o.AllowAnonymous = true },
		} {
			if err := refusal(c.listen, change); err != nil {
				t.Errorf("%s with %s: %v", c.listen, name, err)
			}
		}
	}
}

// refusal returns what New says.
func refusal(listen string, change func(*Options)) error {
	o := Options{Listen: listen, Agent: &fakeAgent{}, Scrape: http.NotFoundHandler(), Log: quiet()}
	change(&o)
	_, err := New(o)
	return err
}

func TestBadOptions(t *testing.T) {
	tokenFile := write(t, "token", token)
	for name, c := range map[string]struct {
		change func(*Options)
		listen string
		want   string
	}{
		"no users":       {func(o *Options) { o.ConfigFile = write(t, "web.yml", "{}") }, ":1", "needs a credential"},
		"contradiction":  {func(o *Options) { o.AllowAnonymous, o.TokenFile = true, tokenFile }, ":1", "contradicts"},
		"short token":    {func(o *Options) { o.TokenFile = write(t, "token", "hunter2") }, "", "openssl rand"},
		"empty token":    {func(o *Options) { o.TokenFile = write(t, "token", "\n") }, "", "openssl rand"},
		"missing token":  {func(o *Options) { o.TokenFile = "/nonexistent" }, "", "web.token_file"},
		"missing config": {func(o *Options) { o.ConfigFile = "/nonexistent" }, "", "web.config_file"},
		"plain password": {func(o *Options) { o.ConfigFile = write(t, "web.yml", "basic_auth_users: {alice: hunter2}") }, "", "web.config_file"},
		"secret as list": {func(o *Options) { o.ConfigFile = write(t, "web.yml", "basic_auth_users: hunter2") }, "", "web.config_file"},
		"unknown key":    {func(o *Options) { o.ConfigFile = write(t, "web.yml", "users: {}") }, "", "users"},
		"no port":        {func(*Options) {}, "19704", "host:port"},
		"bad port":       {func(*Options) {}, "localhost:http2", "no port"},
		"big port":       {func(*Options) {}, "localhost:70000", "no port"},
	} {
		err := refusal(c.listen, c.change)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the secret: %v", name, err)
		}
	}
}

// TestReload changes the files under a running server.
func TestReload(t *testing.T) {
	var log bytes.Buffer
	users, tokenFile := usersFile(t), write(t, "token", token)
	w := newWorld(t, func(o *Options) {
		o.Listen, o.ConfigFile, o.TokenFile, o.Log = ":0", users, tokenFile, slog.New(slog.NewTextHandler(&log, nil))
	})
	step := 0
	change := func(path, text string) {
		t.Helper()
		step++
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(step) * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		w.creds.config.looked, w.creds.token.looked = time.Time{}, time.Time{}
	}
	check := func(what string, want map[string]int) {
		t.Helper()
		for header, code := range want {
			if rec := w.get("/api/v1/node", "Authorization", header); rec.Code != code {
				t.Errorf("%s: %q gets %d, want %d", what, header, rec.Code, code)
			}
		}
	}
	alice, carol, bearer := basic("alice", "wonder"), basic("carol", "singer"), "Bearer "+token
	check("at first", map[string]int{alice: 200, carol: 401, bearer: 200, "": 401})
	change(users, "basic_auth_users: {carol: "+hashOf(t, "singer")+"}")
	check("alice is gone", map[string]int{alice: 401, carol: 200, bearer: 200, "": 401})
	change(users, "basic_auth_users: [hunter2")
	check("a typo changes nothing", map[string]int{alice: 401, carol: 200, "": 401})
	w.creds.config.looked = time.Time{}
	check("still", map[string]int{carol: 200})
	change(tokenFile, strings.ToUpper(token))
	check("another token", map[string]int{bearer: 401, "Bearer " + strings.ToUpper(token): 200})
	change(users, "{}")
	if err := os.Remove(tokenFile); err != nil {
		t.Fatal(err)
	}
	w.creds.token.looked = time.Time{}
	check("no users left", map[string]int{carol: 401, "": 401, "Bearer " + strings.ToUpper(token): 200})
	if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
		t.Errorf("%d errors logged, want one for the typo and one for the lost token:\n%s", n, &log)
	}
	if strings.Contains(log.String(), "hunter2") || strings.Contains(log.String(), token) {
		t.Errorf("a secret is in the log:\n%s", &log)
	}
}

// TestOpenedLater takes away the last credential of a server on the network.
func TestOpenedLater(t *testing.T) {
	users := usersFile(t)
	w := newWorld(t, func(o *Options) { o.Listen, o.ConfigFile = ":0", users })
	if err := os.WriteFile(users, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.creds.config.looked = time.Time{}
	if rec := w.get("/api/v1/node"); rec.Code != http.StatusUnauthorized {
		t.Errorf("an emptied file opened the door: %d", rec.Code)
	}
}

func TestRateLimit(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.ConfigFile = write(t, "web.yml", "rate_limit: {interval: 1h, burst: 2}")
	})
	for i, want := range []int{200, 200, 429} {
		if rec := w.get("/api/v1/node"); rec.Code != want {
			t.Errorf("request %d: %d, want %d", i+1, rec.Code, want)
		}
	}
}

func TestKnownLoginsAreBounded(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.ConfigFile = usersFile(t) })
	for i := range maxKnown {
		w.creds.known[sha256.Sum256([]byte{byte(i), byte(i >> 8)})] = struct{}{}
	}
	w.get("/api/v1/node", "Authorization", basic("alice", "wonder"))
	if n := len(w.creds.known); n != 1 {
		t.Errorf("%d logins are remembered", n)
	}
	w.get("/api/v1/node", "Authorization", basic("alice", "wrong"))
	if n := len(w.creds.known); n != 1 {
		t.Errorf("a wrong password is remembered")
	}
}
